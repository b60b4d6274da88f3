//! Where a person is: the page, and how far it is scrolled. Pure: keys in, place out.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What can be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// How each node does.
    #[default]
    Nodes,
    /// Where each shard is, and how far its copies are behind.
    Shards,
    /// What nodes hold back from each other.
    Breakers,
    /// What an operator should see to.
    Alarms,
}

impl Page {
    /// All of them, in their order.
    pub const ALL: [Page; 4] = [Page::Nodes, Page::Shards, Page::Breakers, Page::Alarms];

    /// Its name on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Page::Nodes => "nodes",
            Page::Shards => "shards",
            Page::Breakers => "breakers",
            Page::Alarms => "alarms",
        }
    }

    fn turned(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// Where a person is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The page.
    pub page: Page,
    /// Rows above the first one that is shown.
    pub scrolled: usize,
    /// Rows that fitted when it was drawn last.
    pub rows: usize,
}

impl Place {
    /// A key was pressed; true if it ends the view.
    pub fn pressed(&mut self, key: KeyEvent) -> bool {
        match key.code {
            _ if ends(key) => return true,
            KeyCode::Tab | KeyCode::Right => self.turn(self.page.turned(1)),
            KeyCode::BackTab | KeyCode::Left => self.turn(self.page.turned(Page::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='4') => {
                self.turn(Page::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Down => self.scrolled += 1,
            KeyCode::Up => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled += self.rows.max(1),
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(self.rows.max(1)),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        false
    }

    fn turn(&mut self, page: Page) {
        (self.page, self.scrolled) = (page, 0);
    }

    /// There are so many rows, of which so many fit: nobody scrolls past the last one.
    pub fn fit(&mut self, rows: usize, fitting: usize) {
        self.rows = fitting;
        self.scrolled = self.scrolled.min(rows.saturating_sub(fitting));
    }
}

/// Whether a key ends the view.
pub fn ends(key: KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if is_control => true,
        KeyCode::Char('q') | KeyCode::Esc => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(place: &mut Place, code: KeyCode) -> bool {
        place.pressed(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_turn_pages_in_a_circle_and_end_it() {
        let mut place = Place::default();
        for expected in [Page::Shards, Page::Breakers, Page::Alarms, Page::Nodes] {
            assert!(!press(&mut place, KeyCode::Tab));
            assert_eq!(place.page, expected);
        }
        press(&mut place, KeyCode::Left);
        assert_eq!(place.page, Page::Alarms);
        press(&mut place, KeyCode::Char('2'));
        assert_eq!(place.page, Page::Shards);
        assert!(press(&mut place, KeyCode::Char('q')) && press(&mut place, KeyCode::Esc));
        assert!(!press(&mut place, KeyCode::Char('c')));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(place.pressed(control));
    }

    #[test]
    fn nobody_scrolls_past_the_ends() {
        let mut place = Place::default();
        press(&mut place, KeyCode::Up);
        assert_eq!(place.scrolled, 0);
        place.fit(12, 5);
        press(&mut place, KeyCode::PageDown);
        press(&mut place, KeyCode::Down);
        assert_eq!(place.scrolled, 6);
        press(&mut place, KeyCode::PageDown);
        place.fit(12, 5);
        assert_eq!(place.scrolled, 7);
        place.fit(3, 5);
        assert_eq!(place.scrolled, 0);
        place.scrolled = 4;
        press(&mut place, KeyCode::Right);
        assert_eq!(place.scrolled, 0, "another page begins at its top");
    }
}
