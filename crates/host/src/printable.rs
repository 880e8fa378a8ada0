//! Making what a guest wrote safe to show.

/// The longest line that is shown, in characters.
const MOST: usize = 512;

/// A guest's line without what a terminal would obey: escape sequences and other control
/// characters are dropped, and a long line is cut.
#[must_use]
pub fn printable(line: &str) -> String {
    let mut shown = String::new();
    let mut characters = line.chars().peekable();
    let mut count = 0;
    while let Some(character) = characters.next() {
        match character {
            // ECMA-48, 5.4: a control sequence ends with a character from '@' to '~'.
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                for next in characters.by_ref() {
                    if ('@'..='~').contains(&next) {
                        break;
                    }
                }
            }
            '\t' => shown.push(' '),
            _ if character.is_control() || is_direction(character) => {}
            _ if count == MOST => {
                shown.push('…');
                break;
            }
            _ => {
                shown.push(character);
                count += 1;
            }
        }
    }
    shown
}

/// Characters that change the order in which others are shown (Unicode, UAX #9).
fn is_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[path = "printable_test.rs"]
mod tests;
