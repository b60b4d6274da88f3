//! What `/proc` says about a process, out of its text.

/// User and system ticks in `/proc/PID/stat`. The name of the program, in brackets, may hold anything.
pub fn ticks(stat: &str) -> Option<f64> {
    let after = &stat[stat.rfind(')')? + 1..];
    let mut fields = after.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// `RssAnon` in `/proc/PID/status`.
pub fn anon_kib(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}
