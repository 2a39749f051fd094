//! Texts of any shape, length and depth: read without a panic, on a worker's stack, with work in proportion to their length.

#[allow(dead_code)] // not all of it is needed here
#[path = "proof/lines.rs"]
mod lines;
#[path = "common/random.rs"]
mod random;

use lines::Line;
use pgsluice::route::{Context, class, effects, fingerprint, lexer, parse};
use random::Random;

/// What `PGSLUICE_TEXTS` says, or enough for every day.
fn rounds() -> usize {
    let given = std::env::var("PGSLUICE_TEXTS").ok();
    given.map_or(2000, |text| text.parse().unwrap())
}

/// A part of `text`.
fn part<'t>(random: &mut Random, text: &'t [u8]) -> &'t [u8] {
    let from = random.below(text.len() + 1);
    &text[from..from + random.below(text.len() - from + 1)]
}

const ODD: &[&str] = &[
    "'", "\"", "$$", "$a$", "/*", "*/", "--", "\\", "(", ")", ";", "\n", "$1", "e'", "u&'",
];

/// One statement with parts of others in it, parts of its own twice or missing, or another byte.
fn mutated(random: &mut Random, statements: &[Vec<u8>]) -> Vec<u8> {
    let mut text = random.choose(statements).clone();
    for _ in 0..random.below(4) {
        let at = random.below(text.len() + 1);
        let other = match random.below(4) {
            0 => vec![random.next() as u8],
            1 => part(random, &text.clone()).to_vec(),
            2 => random.choose(ODD).as_bytes().to_vec(),
            _ => {
                let other = random.choose(statements).clone();
                part(random, &other).to_vec()
            }
        };
        let end = at + random.below(text.len() - at + 1).min(8);
        text.splice(at..end, other);
    }
    text
}

#[test]
fn mutated_statements_are_read_without_a_panic_and_never_as_reads_before_a_write() {
    let statements: Vec<_> = Line::all()
        .into_iter()
        .map(|l| l.sql.into_bytes())
        .collect();
    let mut random = Random(7);
    for round in 0..rounds() {
        let text = mutated(&mut random, &statements);
        let read = std::panic::catch_unwind(|| {
            lexer::assert_tokens_cover(&text);
            effects::assert_readable(&text);
            parse::assert_readable(&text);
            fingerprint::assert_stable(&text);
            class::assert_classified(&text);
        });
        assert!(
            read.is_ok(),
            "{round}: {:?}",
            String::from_utf8_lossy(&text)
        );
    }
}

/// A beginning, what is repeated, a middle, what closes each, an end.
type Shape = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const SHAPES: [Shape; 32] = [
    ("", "(", "", "", ""),
    ("select ", "(", "1", ")", ""),
    ("select ", "case when a then ", "1", " end", ""),
    ("select ", "array[", "1", "]", ""),
    ("select ", "[", "", "", ""),
    ("select '{", "{", "", "}", "}'::int[]"),
    ("select 1 where 1 in (1", ",1", "", "", ")"),
    ("select 1 where 'a' in ('a'", ",'b'", "", "", ")"),
    ("values (1)", ",(1)", "", "", ""),
    ("select ", "1+", "1", "", ""),
    ("select ", "a or ", "a", "", ""),
    ("select ", "f(", "1", ")", ""),
    ("select ", "lower(", "'a'", ")", ""),
    ("select 1", ";select 1", "", "", ""),
    ("select 1 as a", ",1 as a", "", "", ""),
    ("select 1", " union select 1", "", "", ""),
    ("select * from ", "(select * from ", "t", ") x", ""),
    ("select * from a", " join b on true", "", "", ""),
    ("", "with a as (", "select 1", ") select 1", ""),
    ("", "/*", "", "*/", "select 1"),
    ("", "/*", "", "", ""),
    ("", "--\n", "", "", "select 1"),
    ("select '", "''", "", "", "'"),
    ("select e'", "\\'", "", "", "'"),
    ("select ", "$a$ $b$ ", "", "", ""),
    ("select ", "'a'\n", "", "", ""),
    ("select \"", "\"\"", "", "", "\""),
    ("select ", "a.", "a", "", ""),
    ("select ", "@#", "", "", "1"),
    ("select ", "- ", "1", "", ""),
    ("", "a", "", "", ""),
    ("select 1", "::int", "", "", ""),
];

fn text((before, each, middle, close, end): Shape, len: usize) -> Vec<u8> {
    let n = len / (each.len() + close.len());
    [before, &each.repeat(n), middle, &close.repeat(n), end]
        .concat()
        .into_bytes()
}

fn class_of(text: &[u8]) -> class::Class {
    let context = Context {
        server_major: 18,
        ..Context::default()
    };
    let effects = effects::effects_among(text, &context, effects::Names::BuiltIn);
    class::class_of(text, &effects, &context, effects::Names::BuiltIn)
}

/// The processor's time of this thread so far, in nanoseconds: what others do on the machine is not in it.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// The least of some runs.
fn cost_ns(text: &[u8]) -> u64 {
    let run = |_| {
        let before = cpu_ns();
        let _ = fingerprint::lasting(text, &Context::default());
        class_of(text);
        cpu_ns() - before
    };
    (0..3).map(run).min().unwrap()
}

#[test]
fn a_text_of_four_times_the_length_costs_no_more_than_a_few_times_as_much() {
    const LEN: usize = 8 * 1024;
    let mut all = 0;
    for shape in SHAPES {
        let (short, long) = (cost_ns(&text(shape, LEN)), cost_ns(&text(shape, 4 * LEN)));
        // In proportion it is 4, in proportion to the square 16; below a few milliseconds it is chance.
        let limit = 10 * short.max(2_000_000);
        assert!(long < limit, "{shape:?}: {short} ns, {long} ns");
        all += long;
    }
    assert!(all > 0, "the system does not count a thread's time");
    eprintln!("{} ms for texts of {} KiB", all / 1_000_000, 4 * LEN / 1024);
}

#[test]
fn a_megabyte_of_openings_fits_on_a_worker_s_stack() {
    // As large as the stack of a worker's thread.
    let reader = std::thread::Builder::new().stack_size(2 << 20);
    let read = reader.spawn(|| {
        for shape in &SHAPES[..5] {
            let text = text(*shape, 1 << 20);
            lexer::assert_tokens_cover(&text);
            class_of(&text);
            let _ = fingerprint::lasting(&text, &Context::default());
        }
    });
    read.unwrap().join().unwrap();
}
