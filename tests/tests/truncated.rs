//! Packets that end early, against the real tail: it answers from the channel groups that arrive in time.
#![expect(clippy::unwrap_used, reason = "a test fails where it may")]
#![expect(clippy::disallowed_methods, reason = "the tail is to wait")]

use std::time::{Duration, Instant};

use anyhow::Result;
use narrows_codec::{Choice, Encoder, GeometryId, LevelId, Mode, Tables, prefixes};
use narrows_head::{Head, load};
use narrows_models::{Bundle, Parts};
use narrows_tests::{Client, TIMEOUT, bundle, photos, start};
use narrows_wire::{
    FrameReply, Groups, Payload, Query, RefusalCode, Reply, Request, TaskRequest, Truncatable,
    limits::MAX_REPLY, stream,
};

/// A packet with a directory of its groups, and the lengths at which it may end.
fn packet() -> Result<(Vec<u8>, Vec<usize>)> {
    let bundle = Bundle::open(bundle(), Parts::Head)?;
    let tables = Tables::parse(&bundle.read(bundle.tables())?)?;
    let mut head = Head::open(bundle)?;
    let (geometry, level) = (GeometryId(0), LevelId(1));
    let feature = head.encode_image(&load(&photos().join("cat.png"))?, geometry, level)?.feature;
    let (mut encoder, mut packet) = (Encoder::new().truncatable(true), Vec::new());
    encoder.encode(&tables, geometry, level, Choice::Only(Mode::Context), &feature, &mut packet)?;
    let ends = prefixes(&packet)?.collect();
    Ok((packet, ends))
}

fn request(id: u64, wait: Duration, packet: &[u8]) -> Vec<u8> {
    let payload = Payload::Truncatable(Truncatable { wait, packet: packet.to_vec() });
    let task_requests = vec![TaskRequest { task: 0, query: Query::Classify { top_k: 5 } }];
    Request { id, bundle: 0, budget: None, task_requests, payload }.encode().unwrap()
}

fn answered(bytes: &[u8]) -> Reply {
    match FrameReply::parse(bytes).unwrap() {
        FrameReply::Answered(reply) => reply,
        FrameReply::Refused { refusal, .. } => panic!("{refusal}"),
    }
}

#[tokio::test]
async fn a_packet_that_ends_early_is_answered_from_its_whole_groups() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let (packet, ends) = packet()?;
    let total = u8::try_from(ends.len())?;
    let mut id = 0;
    for (group, &end) in ends.iter().enumerate() {
        // It may also end a byte later, where it is not whole yet.
        for length in [end, (end + 1).min(packet.len())] {
            let whole = request(id, TIMEOUT, &packet);
            let cut = &whole[..whole.len() - packet.len() + length];
            let reply = answered(&client.exchange(cut).await?);
            assert_eq!(reply.groups, Some(Groups { used: group as u8 + 1, total }), "{length}");
            id += 1;
        }
    }
    for length in [0, 3, ends[0] - 1] {
        let whole = request(id, TIMEOUT, &packet);
        let bytes = client.exchange(&whole[..whole.len() - packet.len() + length]).await?;
        match FrameReply::parse(&bytes)? {
            FrameReply::Refused { refusal, .. } => {
                assert_eq!(refusal.code, RefusalCode::Expired, "{length}: {refusal}");
            }
            FrameReply::Answered(reply) => panic!("{length}: {reply:?}"),
        }
        id += 1;
    }
    // The connection is as good as before, and a whole packet has the answer of an ordinary one.
    let reply = answered(&client.exchange(&request(id, TIMEOUT, &packet)).await?);
    let FrameReply::Answered(other) = client.classify(id + 1, &packet).await? else { panic!("refused") };
    assert_eq!(reply.answers[0].outcome, other.answers[0].outcome);
    pair.drain()
}

#[tokio::test]
async fn a_packet_that_stalls_is_answered_when_its_time_is_over() -> Result<()> {
    let pair = start()?;
    let client = Client::connect(pair.address(), &pair.certs().join("devices/device")).await?;
    let (packet, ends) = packet()?;
    let whole = request(1, Duration::from_millis(300), &packet);
    let header = whole.len() - packet.len();
    let began = Instant::now();
    let (mut send, mut receive) = client.connection().open_bi().await?;
    send.write_all(&whole[..header + ends[2] + 1]).await?;
    let bytes = tokio::time::timeout(TIMEOUT, stream::read_message(&mut receive, MAX_REPLY)).await??;
    assert!(began.elapsed() >= Duration::from_millis(300), "it was waited for");
    assert_eq!(answered(&bytes).groups.map(|groups| groups.used), Some(3));
    // The rest is not read any more.
    assert!(tokio::time::timeout(TIMEOUT, send.stopped()).await??.is_some());
    assert!(matches!(client.classify(2, &packet).await?, FrameReply::Answered(_)));
    pair.drain()
}
