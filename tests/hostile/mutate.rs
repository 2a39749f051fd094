//! Random changes to conversations, from a seed alone.

pub use super::random::Random;
use super::speak::{frame, query};

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

pub fn bind(name: &str) -> Vec<u8> {
    frame(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}

pub fn execute() -> Vec<u8> {
    frame(b'E', b"\0\0\0\0\0")
}

pub fn sync() -> Vec<u8> {
    frame(b'S', b"")
}

/// Valid conversations after a login, message by message.
pub fn conversations() -> Vec<Vec<Vec<u8>>> {
    let copied = || frame(b'd', b"1\tx\n");
    vec![
        vec![
            query("SELECT 1"),
            query("INSERT INTO t VALUES (1, 'x')"),
            query("SELECT 2, 'x'"),
        ],
        vec![
            query("BEGIN"),
            query("SELECT 1/0"),
            query("SELECT 1"),
            query("ROLLBACK"),
        ],
        vec![
            query(""),
            query("SELECT 1; SELECT 2; SELECT 3"),
            query("SELEKT"),
        ],
        vec![
            parse("", "SELECT 1"),
            bind(""),
            frame(b'D', b"P\0"),
            execute(),
            sync(),
            parse("", "SELECT 1/0"),
            bind(""),
            execute(),
            frame(b'D', b"S\0"),
            sync(),
        ],
        vec![
            parse("s", "INSERT INTO t VALUES (2, 'y')"),
            frame(b'D', b"Ss\0"),
            frame(b'H', b""),
            bind("s"),
            execute(),
            sync(),
            bind("s"),
            execute(),
            frame(b'C', b"Ss\0"),
            sync(),
        ],
        vec![parse("", "SELECT 7"), sync(), bind(""), execute(), sync()],
        vec![
            query("COPY t FROM STDIN"),
            copied(),
            copied(),
            frame(b'c', b""),
            query("SELECT 3"),
        ],
        vec![
            query("COPY t FROM STDIN"),
            copied(),
            frame(b'd', b"no number\n"),
            frame(b'c', b""),
        ],
        vec![
            query("COPY t FROM STDIN"),
            copied(),
            frame(b'f', b"no more\0"),
            query("SELECT 4"),
        ],
        vec![
            parse("", "COPY t FROM STDIN"),
            bind(""),
            execute(),
            copied(),
            frame(b'c', b""),
            sync(),
        ],
        vec![
            parse("", "COPY t FROM STDIN"),
            bind(""),
            execute(),
            sync(),
            copied(),
            frame(b'c', b""),
            sync(),
            query("SELECT 5"),
        ],
        vec![
            query("COPY (SELECT generate_series(1, 50)) TO STDOUT"),
            query("SELECT 6"),
        ],
        // int4pl(1, 2), in text.
        vec![
            frame(b'F', b"\0\0\0\xb1\0\0\0\x02\0\0\0\x011\0\0\0\x012\0\0"),
            query("SELECT 8"),
        ],
    ]
}

/// Types that a client may send after its login; Terminate not among them.
const KNOWN: &[u8] = b"QPBDECHSFdcf";

/// Changes that leave every frame right: another order, repetitions, gaps, other types, other contents.
pub fn whole(random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames = random.choose(&conversations()).clone();
    if random.below(4) == 0 {
        frames.extend(random.choose(&conversations()).clone());
    }
    for _ in 0..1 + random.below(3) {
        let (at, other) = (random.below(frames.len()), random.below(frames.len()));
        match random.below(6) {
            0 => frames.swap(at, other),
            1 => frames.insert(other, frames[at].clone()),
            2 if frames.len() > 1 => drop(frames.remove(at)),
            3 => frames[at][0] = *random.choose(KNOWN),
            4 => frames[at] = other_contents(random, &frames[at]),
            _ => frames.insert(
                at,
                random
                    .choose(&[sync(), frame(b'H', b""), execute()])
                    .clone(),
            ),
        }
    }
    // Whether a Flush with a body is minded depends on what the server has come to.
    for flush in frames.iter_mut().filter(|f| f[0] == b'H') {
        *flush = frame(b'H', b"");
    }
    frames
}

/// The same type, and a body that is cut, longer, or has other bits.
fn other_contents(random: &mut Random, whole: &[u8]) -> Vec<u8> {
    let mut body = whole[5..].to_vec();
    match random.below(3) {
        0 if !body.is_empty() => flip(random, &mut body),
        1 => body.truncate(random.below(body.len() + 1)),
        _ => body.extend((0..1 + random.below(8)).map(|_| random.next() as u8)),
    }
    frame(whole[0], &body)
}

/// Changes that may break everything: bits, lengths, types, cuts, repetitions.
pub fn broken(random: &mut Random, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut frames = frames.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(frames.len());
        let other = frames[random.below(frames.len())].clone();
        let chosen = &mut frames[at];
        match random.below(7) {
            0 => flip(random, chosen),
            1 => set_length(random, chosen),
            2 => chosen[0] = random.next() as u8,
            3 => chosen.truncate(random.below(chosen.len()).max(1)),
            4 => frames.insert(at, other),
            5 => chosen.extend((0..random.below(40)).map(|_| random.next() as u8)),
            _ => frames.truncate(at + 1),
        }
    }
    frames.concat()
}

pub fn flip(random: &mut Random, bytes: &mut [u8]) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
}

const LENGTHS: [u32; 9] = [0, 1, 3, 4, 5, 10_001, 0x3fff_ffff, 0x8000_0000, 0xffff_ffff];

/// At the place of a message's length, or of a startup packet's.
fn set_length(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(2);
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&random.choose(&LENGTHS).to_be_bytes());
    }
}
