//! What the relay does with each message, without sockets: frames, buffer, pipeline.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgsluice::wire::{
    buffer::Buffer,
    frame::{self, Sender},
    pipeline::{Pipeline, Sent, Show},
};
use std::hint::black_box;

/// A reply of `rows` rows of 40 bytes, as a server sends it.
fn reply(rows: usize) -> Vec<u8> {
    let mut bytes = vec![b'T', 0, 0, 0, 6, 0, 0];
    for _ in 0..rows {
        bytes.extend_from_slice(&[b'D', 0, 0, 0, 40]);
        bytes.extend_from_slice(&[7; 36]);
    }
    bytes.extend_from_slice(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
    bytes
}

/// Fills the buffer, walks its frames against the pipeline, and sends everything on.
fn relay(buffer: &mut Buffer, pipeline: &mut Pipeline, bytes: &[u8]) {
    pipeline.send(Sent::Query, Show::Client);
    buffer.room()[..bytes.len()].copy_from_slice(bytes);
    buffer.fill(bytes.len());
    while let Ok(Some(frame)) = frame::peek(buffer.unseen(), Sender::Backend) {
        let first = buffer.unseen().get(5).copied();
        let shown = pipeline.receive(frame.tag, first);
        assert_eq!(shown, Ok(Show::Client));
        buffer.pass(frame.len);
    }
    let sent = black_box(buffer.pending()).len();
    buffer.sent(sent);
    assert!(pipeline.is_free());
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay_reply");
    for rows in [1, 10, 300] {
        let bytes = reply(rows);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut buffer = Buffer::new(vec![0; 16 * 1024].into_boxed_slice());
        let mut pipeline = Pipeline::default();
        group.bench_function(format!("{rows}_rows"), |b| {
            b.iter(|| relay(&mut buffer, &mut pipeline, &bytes));
        });
    }
    group.finish();
}

fn batches(c: &mut Criterion) {
    let sent = [
        Sent::Parse,
        Sent::Bind,
        Sent::DescribePortal,
        Sent::Execute,
        Sent::Sync,
    ];
    let replies = [
        (b'1', 0),
        (b'2', 0),
        (b'T', 0),
        (b'D', 0),
        (b'C', 0),
        (b'Z', b'I'),
    ];
    let mut pipeline = Pipeline::default();
    c.bench_function("pipeline_batch", |b| {
        b.iter(|| {
            sent.iter().for_each(|s| pipeline.send(*s, Show::Client));
            for (tag, first) in replies {
                black_box(pipeline.receive(tag, Some(first))).ok();
            }
        });
    });
}

criterion_group!(benches, replies, batches);
criterion_main!(benches);
