//! What was seen, as it is drawn: a head line, the pages, the operation under way, one page, the keys. Pure: the same
//! look at the same place is drawn the same.

use super::super::output::escape;
use super::super::strategy::document;
use super::super::strategy::follow::Change;
use super::look::Snapshot;
use super::place::{Page, Place};
use crate::types::NodeName;
use crate::wire::alarm::Severity;
use crate::wire::client::Role;
use crate::wire::load::NodeStats;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Gauge, Paragraph, Row, Table, Wrap};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How something is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Head,
}

/// Draws one look. With `colors` off only what every terminal has is used.
pub fn draw(frame: &mut Frame<'_>, seen: &Snapshot, place: &mut Place, colors: bool) {
    let pen = Pen { colors };
    let change = under_way(seen);
    let operation = if change.is_some() { 2 } else { 0 };
    let [head, pages, doing, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(operation),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(pen.head(seen)), head);
    frame.render_widget(Paragraph::new(pen.pages(place.page)), pages);
    if let Some(change) = &change {
        pen.operation(frame, doing, change);
    }
    if let Some(error) = &seen.error {
        let text = format!("no node answers: {}", escape(error.as_bytes()));
        let text = Paragraph::new(text).style(pen.style(Tone::Bad)).wrap(Wrap { trim: true });
        frame.render_widget(text, body);
    } else {
        let list = match place.page {
            Page::Nodes => nodes(seen),
            Page::Shards => shards(seen),
            Page::Breakers => breakers(seen),
            Page::Alarms => alarms(seen),
        };
        pen.list(frame, body, list, place);
    }
    let text = "q ends   Tab, arrows or 1 to 4 turn pages   up and down scroll";
    frame.render_widget(Paragraph::new(text).style(pen.style(Tone::Head)), keys);
}

/// The operation that moves, or waits for an order.
fn under_way(seen: &Snapshot) -> Option<Change> {
    let view = seen.strategy.as_ref()?;
    let operation = view.operation.as_ref().filter(|operation| !operation.phase.is_over())?;
    Some(Change::of(operation, view.progress.as_ref()))
}

struct Pen {
    colors: bool,
}

impl Pen {
    fn style(&self, tone: Tone) -> Style {
        let style = match tone {
            Tone::Head => Style::new().add_modifier(Modifier::DIM),
            Tone::Bad => Style::new().add_modifier(Modifier::BOLD),
            _ => Style::new(),
        };
        match tone {
            Tone::Good if self.colors => style.fg(Color::Green),
            Tone::Warn if self.colors => style.fg(Color::Yellow),
            Tone::Bad if self.colors => style.fg(Color::Red),
            _ => style,
        }
    }

    fn head(&self, seen: &Snapshot) -> Line<'static> {
        let time = document::time(seen.at_ms).unwrap_or_default();
        let Some(status) = &seen.status else { return Line::from(format!("ppdb  {time}")) };
        let (up, all) = (status.nodes.iter().filter(|node| node.up).count(), status.nodes.len());
        let critical = status.alarms.iter().any(|alarm| alarm.severity == Severity::Critical);
        let tone = match status.alarms.len() {
            _ if critical || !status.shards_leaderless.is_empty() => Tone::Bad,
            0 if up == all => Tone::Good,
            _ => Tone::Warn,
        };
        let how = format!("{up} of {all} up, {} alarms", status.alarms.len());
        let leader = status.metadata_leader.as_ref().map_or("nobody", NodeName::as_str);
        Line::from(vec![
            Span::styled(
                format!("{}  ", status.cluster),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            Span::raw(format!("{}  epoch {}  ", document::name(status.strategy), status.epoch)),
            Span::styled(how, self.style(tone)),
            Span::raw(format!("  {leader} coordinates  {time}")),
        ])
    }

    fn pages(&self, page: Page) -> Line<'static> {
        let name = |of: Page| {
            let style = match of == page {
                true => Style::new().add_modifier(Modifier::REVERSED),
                false => Style::new(),
            };
            Span::styled(format!(" {} {} ", of as usize + 1, of.name()), style)
        };
        Line::from(Page::ALL.map(name).to_vec())
    }

    fn operation(&self, frame: &mut Frame<'_>, area: Rect, change: &Change) {
        let [line, bar] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
        let text = escape(document::change_line(change).as_bytes());
        let tone = if change.guard.alarm.is_some() { Tone::Bad } else { Tone::Plain };
        frame.render_widget(Paragraph::new(text).style(self.style(tone)), line);
        if let Some(fraction) = change.fraction() {
            let gauge = Gauge::default().ratio(fraction.clamp(0.0, 1.0)).use_unicode(true);
            frame.render_widget(gauge.gauge_style(self.style(Tone::Good)), bar);
        }
    }

    fn list(&self, frame: &mut Frame<'_>, area: Rect, list: List, place: &mut Place) {
        if list.rows.is_empty() {
            let nothing = Paragraph::new(list.nothing).style(self.style(Tone::Good));
            return frame.render_widget(nothing, area);
        }
        place.fit(list.rows.len(), usize::from(area.height.saturating_sub(1)));
        let rows = list.rows.into_iter().skip(place.scrolled).map(|(tone, cells)| {
            let cells = cells.into_iter().map(|text| Cell::from(escape(text.as_bytes())));
            Row::new(cells.collect::<Vec<_>>()).style(self.style(tone))
        });
        let header = Row::new(list.header).style(Style::new().add_modifier(Modifier::BOLD));
        let table = Table::new(rows, list.widths).header(header).column_spacing(1);
        frame.render_widget(table, area);
    }
}

/// A page: rows, each with how it is meant.
struct List {
    header: Vec<&'static str>,
    widths: Vec<Constraint>,
    rows: Vec<(Tone, Vec<String>)>,
    /// What is said if there is none.
    nothing: &'static str,
}

fn widths(of: &[u16]) -> Vec<Constraint> {
    let fixed = of.iter().map(|width| match width {
        0 => Constraint::Min(10),
        width => Constraint::Length(*width),
    });
    fixed.collect()
}

fn nodes(seen: &Snapshot) -> List {
    let members = seen.status.iter().flat_map(|status| &status.nodes);
    let rows = members.map(|member| {
        let stats = seen.stats.iter().find(|stats| stats.node == member.name);
        let role = match member.role {
            Role::Primary => "prim",
            Role::Replica => "repl",
        };
        let (tone, state) = match (member.up, stats) {
            (false, _) => (Tone::Bad, "DOWN"),
            (true, None) => (Tone::Warn, "slow"),
            (true, Some(stats)) if stats.load_percent >= 90 => (Tone::Warn, "up"),
            (true, Some(_)) => (Tone::Plain, "up"),
        };
        let mut cells = vec![member.name.to_string(), role.to_owned(), state.to_owned()];
        cells.extend(stats.map_or_else(|| vec!["-".to_owned(); 8], numbers));
        (tone, cells)
    });
    List {
        header: vec![
            "NODE", "ROLE", "STATE", "READS/S", "WRITES/S", "ERR/S", "R P99MS", "W P99MS", "CPU%",
            "LOAD%", "LAG",
        ],
        widths: widths(&[9, 4, 5, 8, 8, 6, 7, 7, 4, 5, 6]),
        rows: rows.collect(),
        nothing: "there are no nodes",
    }
}

/// Reads, writes and errors a second, both p99, processors, load, lag.
fn numbers(stats: &NodeStats) -> Vec<String> {
    let counts = &stats.counts;
    let per_s = |count: u64| count as f64 * 1_000.0 / counts.window_ms.max(1) as f64;
    let ms = |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{:.1}", us as f64 / 1e3));
    vec![
        format!("{:.0}", per_s(counts.reads)),
        format!("{:.0}", per_s(counts.writes)),
        format!("{:.1}", per_s(counts.errors)),
        ms(stats.service.read_p99_us),
        ms(stats.service.write_p99_us),
        stats.load.cpu_percent.to_string(),
        stats.load_percent.to_string(),
        stats.lag_entries.map_or("-".to_owned(), |lag| lag.to_string()),
    ]
}

fn shards(seen: &Snapshot) -> List {
    // What the leader of a shard says of a copy counts: it alone knows.
    let mut behind: BTreeMap<u16, (u64, &NodeName)> = BTreeMap::new();
    for copy in seen.lag.iter().filter(|copy| copy.state != "leader") {
        let Some(matched) = copy.matched else { continue };
        let entries = copy.leader_index.saturating_sub(matched);
        let most = behind.entry(copy.shard.0).or_insert((entries, &copy.node));
        if entries >= most.0 {
            *most = (entries, &copy.node);
        }
    }
    let leaderless = seen.status.as_ref().map_or(&[][..], |status| &status.shards_leaderless);
    let shards = seen.map.iter().flat_map(|map| &map.shards);
    let rows = shards.map(|shard| {
        let is_led = !leaderless.contains(&shard.id);
        let (tone, state) = if is_led { (Tone::Plain, "led") } else { (Tone::Bad, "NO LEADER") };
        let (entries, whose) = match behind.get(&shard.id.0) {
            Some((entries, node)) => (entries.to_string(), node.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let copies: Vec<&str> = shard.copies.iter().map(NodeName::as_str).collect();
        let owner = shard.owner.to_string();
        (tone, vec![shard.id.to_string(), owner, state.into(), entries, whose, copies.join(" ")])
    });
    List {
        header: vec!["SHARD", "OWNER", "STATE", "BEHIND", "FURTHEST", "COPIES"],
        widths: widths(&[6, 9, 9, 8, 9, 0]),
        rows: rows.collect(),
        nothing: "there are no shards",
    }
}

fn breakers(seen: &Snapshot) -> List {
    let mut all: Vec<_> = seen.breakers.iter().collect();
    all.sort_by_key(|(_, breaker)| Reverse(breaker.seen.is_open));
    let rows = all.into_iter().map(|(node, breaker)| {
        let of = &breaker.seen;
        let tone = if of.is_open { Tone::Bad } else { Tone::Plain };
        let counts = [of.calls, of.error_count, of.slow_request_count].map(|n| n.to_string());
        let mut cells = vec![
            node.to_string(),
            breaker.peer.to_string(),
            breaker.class.name().to_owned(),
            of.state.name().to_owned(),
        ];
        cells.extend(counts);
        cells.push(of.reason.clone().unwrap_or_default());
        (tone, cells)
    });
    List {
        header: vec!["NODE", "CALLS", "CLASS", "STATE", "IN 10S", "FAILED", "SLOW", "WHY LAST"],
        widths: widths(&[9, 9, 7, 9, 6, 6, 5, 0]),
        rows: rows.collect(),
        nothing: "no node has called another one yet",
    }
}

fn alarms(seen: &Snapshot) -> List {
    let mut rows = Vec::new();
    for alarm in seen.status.iter().flat_map(|status| &status.alarms) {
        let tone = match alarm.severity {
            Severity::Critical => Tone::Bad,
            Severity::Warning => Tone::Warn,
        };
        let age_s = seen.at_ms.saturating_sub(alarm.since_ms) / 1_000;
        let head = [alarm.severity.name(), &format!("{age_s}s"), &alarm.name, &alarm.message];
        rows.push((tone, head.map(str::to_owned).to_vec()));
        rows.push((Tone::Plain, ["", "", "", &alarm.fix].map(str::to_owned).to_vec()));
    }
    List {
        header: vec!["SEVERITY", "FOR", "ALARM", "WHAT, AND WHAT CAN BE DONE"],
        widths: widths(&[8, 8, 12, 0]),
        rows,
        nothing: "no alarm",
    }
}
