//! Whether a session saw the same both ways; see the list of documented differences in this test's main file.

use std::{collections::HashMap, fmt::Write};

use crate::{generate::Script, neighbours::LOST, raw::Frame, session::Seen, world::World};

/// The first object identifier that no initdb gives.
const FIRST_OWN_OID: u32 = 16_384;

/// Where the two runs went apart.
pub struct Difference {
    /// None: at login.
    step: Option<usize>,
    direct: Vec<Seen>,
    proxied: Vec<Seen>,
    neighbours: Vec<String>,
}

/// Runs a script both ways.
pub fn compare(world: &mut World, script: &Script, seed: u64) -> Option<Difference> {
    let direct = world.direct(script);
    let (proxied, neighbours) = world.proxied(script, seed);
    let (direct, proxied) = (normal(direct), normal(proxied));
    if neighbours.iter().any(|line| line.starts_with(LOST)) {
        return Some(Difference {
            step: script.steps.len().checked_sub(1),
            direct: Vec::new(),
            proxied: Vec::new(),
            neighbours,
        });
    }
    let at = (0..direct.len().max(proxied.len())).find(|at| direct.get(*at) != proxied.get(*at))?;
    if proxied.get(at).is_some_and(|seen| is_documented(seen)) {
        return None;
    }
    Some(Difference {
        step: at.checked_sub(1),
        direct: direct.get(at).cloned().unwrap_or_default(),
        proxied: proxied.get(at).cloned().unwrap_or_default(),
        neighbours,
    })
}

impl Difference {
    pub fn show(&self, script: &Script) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "login with {:?}", script.parameters);
        let last = self.step.map_or(0, |step| step + 1);
        for (number, step) in script.steps.iter().take(last).enumerate() {
            let marker = format!("-- step {number}");
            let from = self.neighbours.iter().position(|line| *line == marker);
            let lines = self
                .neighbours
                .iter()
                .skip(from.map_or(usize::MAX, |from| from + 1));
            for line in lines.take_while(|line| !line.starts_with("-- ")) {
                let _ = writeln!(out, "          {line}");
            }
            let _ = writeln!(out, "  {number:3}: {step:?}");
        }
        let _ = writeln!(
            out,
            "  direct:  {:?}\n  proxied: {:?}",
            self.direct, self.proxied
        );
        out
    }
}

/// A documented difference, behind which the two sessions may be in different states; see this test's main file.
fn is_documented(seen: &[Seen]) -> bool {
    seen.iter().any(|seen| match seen {
        Seen::Frame(frame) if frame.tag == b'E' => {
            let code = frame.field(b'C');
            code == "25P02" || code == "26000" && frame.field(b'M').starts_with("unnamed")
        }
        Seen::Frame(frame) if frame.tag == b'D' => frame.body.windows(9).any(|w| w == b"pgsluice_"),
        _ => false,
    })
}

fn normal(all: Vec<Vec<Seen>>) -> Vec<Vec<Seen>> {
    let mut oids = Oids::default();
    let mut all: Vec<Vec<Seen>> = all
        .into_iter()
        .map(|seen| seen.into_iter().map(|s| frame(s, &mut oids)).collect())
        .collect();
    // At login the order of ParameterStatus is nobody's promise.
    if let Some(login) = all.first_mut() {
        login.sort_by_key(|seen| match seen {
            Seen::Frame(frame) => (frame.tag == b'Z', frame.tag, frame.body.clone()),
            _ => (true, 0, Vec::new()),
        });
    }
    all
}

fn frame(seen: Seen, oids: &mut Oids) -> Seen {
    let Seen::Frame(Frame { tag, mut body }) = seen else {
        return seen;
    };
    match tag {
        b'K' => body.clear(),
        b'A' => body[..4].fill(0),
        b'T' => row_description(&mut body, oids),
        b't' => body[2..]
            .chunks_exact_mut(4)
            .for_each(|oid| oids.replace(oid)),
        _ => {}
    }
    Seen::Frame(Frame { tag, body })
}

/// The columns' tables and types.
fn row_description(body: &mut [u8], oids: &mut Oids) {
    let mut rest = &mut body[2..];
    while let Some(end) = rest.iter().position(|b| *b == 0) {
        let (column, tail) = rest.split_at_mut(end + 19);
        let facts = &mut column[end + 1..];
        oids.replace(&mut facts[..4]);
        oids.replace(&mut facts[6..10]);
        rest = tail;
    }
}

/// Objects are made anew for each run: which one is meant counts, not its number.
#[derive(Default)]
struct Oids(HashMap<u32, u32>);

impl Oids {
    fn replace(&mut self, bytes: &mut [u8]) {
        let oid = u32::from_be_bytes((&*bytes).try_into().unwrap());
        if oid >= FIRST_OWN_OID {
            let next = FIRST_OWN_OID + self.0.len() as u32;
            let known = *self.0.entry(oid).or_insert(next);
            bytes.copy_from_slice(&known.to_be_bytes());
        }
    }
}
