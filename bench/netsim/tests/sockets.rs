//! The relay with real sockets and an echo server.
#![expect(clippy::disallowed_methods, reason = "a datagram must not arrive early")]

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use narrows_netsim::{Ladder, Link, Relay};

/// Sends every datagram back to its sender, until an empty one arrives.
fn echo() -> (UdpSocket, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port of loopback");
    let own = socket.try_clone().expect("a second handle");
    let thread = thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((bytes @ 1.., from)) = own.recv_from(&mut buffer) {
            own.send_to(&buffer[..bytes], from).expect("loopback takes it");
        }
    });
    (socket, thread)
}

fn link(fields: &str) -> Link {
    let text = format!("[[link]]\nname = \"test\"\nabout = \"\"\nsource = \"\"\n{fields}");
    Ladder::parse(&text).expect("the link of the test").links.remove(0)
}

#[test]
fn datagrams_of_two_heads_are_returned_whole_and_not_early() {
    let (server, echo) = echo();
    let relay = Relay::start(&link("rtt_ms = 30\nup_kbit = 1000"), server.local_addr().unwrap(), 1).unwrap();
    let heads = [(); 2].map(|()| {
        let head = UdpSocket::bind("127.0.0.1:0").unwrap();
        head.connect(relay.address()).unwrap();
        head.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        head
    });
    for round in 0..5u8 {
        let start = Instant::now();
        for (place, head) in heads.iter().enumerate() {
            head.send(&[round, place as u8, 7]).unwrap();
        }
        for (place, head) in heads.iter().enumerate() {
            let mut buffer = [0; 64];
            let bytes = head.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..bytes], [round, place as u8, 7]);
            assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
        }
    }
    // The relay publishes its counts after it has sent.
    while relay.counts().down.datagrams < 10 {
        thread::sleep(Duration::from_millis(5));
    }
    let counts = relay.counts();
    assert_eq!((counts.up.datagrams, counts.up.bytes, counts.down.bytes), (10, 30, 30));
    assert_eq!((counts.up.lost, counts.up.overflowed, counts.up.unsent, counts.down.unsent), (0, 0, 0, 0));
    drop(relay);
    server.send_to(&[], server.local_addr().unwrap()).unwrap();
    echo.join().unwrap();
}

#[test]
fn a_full_line_is_not_faster_than_its_rate() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let relay = Relay::start(&link("rtt_ms = 20\nup_kbit = 1000"), server.local_addr().unwrap(), 1).unwrap();
    let head = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    // 1,000 bytes on the wire take 8 ms.
    for _ in 0..25 {
        head.send_to(&[0; 972], relay.address()).unwrap();
    }
    for place in 1..=25 {
        server.recv(&mut [0; 2048]).unwrap();
        let earliest = Duration::from_millis(8 * place + 10);
        assert!(start.elapsed() >= earliest, "{place}: {:?} before {earliest:?}", start.elapsed());
    }
}

#[test]
fn overflows_and_losses_are_counted_separately() {
    let (server, echo) = echo();
    let link = link("up_kbit = 1000\nqueue_kb = 10\nloss = 0.5");
    let relay = Relay::start(&link, server.local_addr().unwrap(), 3).unwrap();
    let head = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        head.send_to(&[0; 972], relay.address()).unwrap();
    }
    while relay.counts().up.datagrams < 100 {
        thread::sleep(Duration::from_millis(5));
    }
    let up = relay.counts().up;
    assert_eq!(up.bytes, 97_200);
    assert!(up.overflowed >= 80 && up.overflowed < 100, "{up:?}");
    assert!(up.lost > 0 && up.lost + up.overflowed < 100, "{up:?}");
    drop(relay);
    server.send_to(&[], server.local_addr().unwrap()).unwrap();
    echo.join().unwrap();
}
