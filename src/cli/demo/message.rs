//! What `demo promote` and its kind say to the running demo, and what it answers: one JSON value per line.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::How;

/// The longest line of either side.
const MAX_LINE: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    AddReplica,
    Promote(String),
    Stop(String, How),
    Start(String),
    Status,
}

/// Any number of `Say`, then one of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Say(String),
    Done,
    Failed(String),
}

pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// None at the end.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.is_empty() {
        true => Ok(None),
        false => Ok(Some(serde_json::from_slice(&line)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_lines_survive() {
        let mut wire = Vec::new();
        send(&mut wire, &Answer::Failed("a\nb".into())).unwrap();
        send(&mut wire, &Answer::Done).unwrap();
        let mut from = wire.as_slice();
        match receive(&mut from).unwrap() {
            Some(Answer::Failed(text)) => assert_eq!(text, "a\nb"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(receive(&mut from).unwrap(), Some(Answer::Done)));
        assert!(receive::<Answer>(&mut from).unwrap().is_none());
    }

    #[test]
    fn an_endless_line_is_refused() {
        let long = vec![b' '; 2 * MAX_LINE as usize];
        assert!(receive::<Answer>(&mut long.as_slice()).is_err());
    }
}
