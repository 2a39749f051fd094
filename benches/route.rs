//! How long it takes to say what a text leaves behind and what it names. `shapes` is a Query whose shape the cache knows,
//! `effects` and `parse` are what one pays that it does not know.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pgsluice::{
    route::{Context, effects::effects, fingerprint::Fingerprints, lexer::Lexer, parse},
    session::shapes::Shapes,
};

const POINT_READ: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
const INSERT: &str = "INSERT INTO \"posts\" (\"title\", \"body\", \"created_at\") VALUES ($1, $2, now()) \
     ON CONFLICT (\"id\") DO UPDATE SET \"title\" = excluded.\"title\" RETURNING \"id\"";
const REPORT: &str = "SELECT a.id, count(*) FILTER (WHERE b.x > 1), coalesce(sum(b.y), 0) FROM a LEFT JOIN b \
     ON (a.id = b.a_id) WHERE a.created BETWEEN '2024-01-01' AND now() GROUP BY a.id ORDER BY 2 DESC LIMIT 10";

fn route(c: &mut Criterion) {
    let context = Context::default();
    let fingerprints = Fingerprints::new(b"0123456789abcdef");
    let shapes = Shapes::default();
    for (name, text) in [
        ("point_read", POINT_READ),
        ("insert", INSERT),
        ("report", REPORT),
    ] {
        let text = text.as_bytes();
        c.bench_function(&format!("lexer/{name}"), |b| {
            b.iter(|| Lexer::new(black_box(text), true).count());
        });
        c.bench_function(&format!("effects/{name}"), |b| {
            b.iter(|| effects(black_box(text), &context));
        });
        c.bench_function(&format!("fingerprint/{name}"), |b| {
            b.iter(|| fingerprints.of(black_box(text), &context));
        });
        c.bench_function(&format!("shapes/{name}"), |b| {
            b.iter(|| shapes.is_free(black_box(text), &context));
        });
        c.bench_function(&format!("parse/{name}"), |b| {
            b.iter(|| parse::read(black_box(text), &context));
        });
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
