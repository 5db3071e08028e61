//! One direction of a link in virtual time: rate, delay, loss and order.

use std::{sync::Arc, time::Duration};

use narrows_netsim::{HEADER, Loss, Rate, Shape, Shaper, Trace};
use proptest::prelude::*;

/// Sends datagrams of these sizes, each `gap` after the one before; returns time and number of each arrival.
fn run(shape: Shape, seed: u64, sizes: &[usize], gap: Duration) -> (Vec<(Duration, usize)>, Shaper<usize>) {
    let mut line = Shaper::new(shape, seed);
    let mut arrived = Vec::new();
    for (number, &bytes) in sizes.iter().enumerate() {
        let now = gap * number as u32;
        while let Some(due) = line.due().filter(|&due| due <= now) {
            arrived.extend(line.pop(due).map(|number| (due, number)));
        }
        line.push(now, bytes, number);
    }
    while let Some(due) = line.due() {
        arrived.extend(line.pop(due).map(|number| (due, number)));
    }
    (arrived, line)
}

proptest! {
    #[test]
    fn a_full_line_carries_exactly_its_rate(
        rate in 10_000u64..2_000_000_000,
        sizes in prop::collection::vec(0usize..1_472, 1..200),
        delay in 0u64..1_000,
    ) {
        let delay = Duration::from_millis(delay);
        let (arrived, _) = run(Shape { rate: Some(Rate::Fixed(rate)), delay, ..Shape::default() }, 1, &sizes, Duration::ZERO);
        prop_assert_eq!(arrived.len(), sizes.len());
        let bits: usize = sizes.iter().map(|bytes| (bytes + HEADER) * 8).sum();
        let took = (arrived[sizes.len() - 1].0 - delay).as_secs_f64();
        // Each datagram's time is rounded up to a nanosecond.
        let exact = bits as f64 / rate as f64;
        prop_assert!(took >= exact - 1e-9 && took <= exact + 1e-9 * (sizes.len() + 1) as f64, "{} {}", took, exact);
    }

    #[test]
    fn an_idle_line_delays_by_serialisation_and_propagation(
        bytes in 0usize..1_472, kbit in 1u64..1_000_000, delay in 0u64..2_000,
    ) {
        let delay = Duration::from_millis(delay);
        let (arrived, _) = run(Shape { rate: Some(Rate::Fixed(kbit * 1000)), delay, ..Shape::default() }, 1, &[bytes], Duration::ZERO);
        let bits = ((bytes + HEADER) * 8) as f64;
        let off = arrived[0].0.as_secs_f64() - delay.as_secs_f64() - bits / (kbit * 1000) as f64;
        prop_assert!(off.abs() < 3e-9, "{}", off);
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_breaks_it(
        seed: u64, jitter in 0u64..50, reorder in prop::bool::ANY,
    ) {
        let shape = Shape {
            rate: Some(Rate::Fixed(10_000_000)),
            jitter: Duration::from_millis(jitter),
            reorder: if reorder { 0.2 } else { 0.0 },
            late: Duration::from_millis(40),
            ..Shape::default()
        };
        let (arrived, _) = run(shape, seed, &[500; 300], Duration::from_millis(1));
        prop_assert_eq!(arrived.len(), 300);
        prop_assert!(arrived.is_sorted_by_key(|(due, _)| *due));
        prop_assert_eq!(!arrived.is_sorted_by_key(|(_, number)| *number), reorder);
    }

    #[test]
    fn loss_is_within_six_standard_deviations(seed: u64, share in 0.001f64..0.5, mean in 1u32..8) {
        const N: usize = 20_000;
        let runs = Loss::Runs { enter: share / (f64::from(mean) * (1.0 - share)), leave: 1.0 / f64::from(mean) };
        for loss in [Loss::Single(share), runs] {
            let (arrived, line) = run(Shape { loss, ..Shape::default() }, seed, &[100; N], Duration::ZERO);
            prop_assert_eq!(line.count().lost as usize, N - arrived.len());
            let stays = match loss {
                Loss::Runs { enter, leave } => 1.0 - enter - leave,
                _ => 0.0,
            };
            let spread = (share * (1.0 - share) / N as f64 * (1.0 + stays) / (1.0 - stays)).sqrt();
            let off = line.count().lost as f64 / N as f64 - share;
            // Six standard deviations: one case in half a billion.
            prop_assert!(off.abs() < 6.0 * spread + 1.0 / N as f64, "{} of {} ({:?})", off, spread, loss);
        }
    }

    #[test]
    fn the_queue_never_exceeds_its_size(queue in 1_500usize..20_000, sizes in prop::collection::vec(1usize..1_472, 1..100)) {
        let rate = 1_000_000;
        let (arrived, line) = run(Shape { rate: Some(Rate::Fixed(rate)), queue, ..Shape::default() }, 1, &sizes, Duration::ZERO);
        prop_assert_eq!(line.count().overflowed as usize, sizes.len() - arrived.len());
        // All datagrams arrive at once: the last one to be sent waited for at most a full queue.
        let longest = arrived[arrived.len() - 1].0.as_secs_f64();
        prop_assert!(longest <= queue as f64 * 8.0 / rate as f64 + 1e-6, "{}", longest);
        // Nothing is dropped while there is room.
        let all: usize = sizes.iter().map(|bytes| bytes + HEADER).sum();
        prop_assert!(all <= queue || line.count().overflowed > 0);
        prop_assert!(all > queue || line.count().overflowed == 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals(seed: u64) {
        let shape = Shape {
            rate: Some(Rate::Fixed(1_000_000)),
            jitter: Duration::from_millis(5),
            loss: Loss::Single(0.1),
            reorder: 0.1,
            late: Duration::from_millis(9),
            ..Shape::default()
        };
        let once = run(shape.clone(), seed, &[300; 200], Duration::from_millis(3)).0;
        prop_assert_eq!(&once, &run(shape.clone(), seed, &[300; 200], Duration::from_millis(3)).0);
        prop_assert_ne!(&once, &run(shape, seed ^ 1, &[300; 200], Duration::from_millis(3)).0);
    }
}

#[test]
fn a_lost_datagram_takes_its_time_on_the_line() {
    let shape = Shape {
        rate: Some(Rate::Fixed(8_000)),
        loss: Loss::Runs { enter: 1.0, leave: 1.0 },
        ..Shape::default()
    };
    let (arrived, line) = run(shape, 1, &[72, 72], Duration::ZERO);
    assert_eq!(line.count().lost, 1);
    assert_eq!(arrived, [(Duration::from_millis(200), 1)]);
}

#[test]
fn a_recorded_link_carries_its_packets_at_their_times_and_no_more() {
    let ms = Duration::from_millis;
    let trace = Trace::parse("10\n20\n20\n500\n").expect("a link");
    let shape = Shape { rate: Some(Rate::Recorded(Arc::new(trace))), delay: ms(5), ..Shape::default() };
    let mut line = Shaper::new(shape, 1);
    let mut arrived = Vec::new();
    // A datagram of a whole packet, two that share one, one of two packets, and one that the next round carries.
    for bytes in [1472, 700, 700, 2000, 1472] {
        line.push(Duration::ZERO, bytes, bytes);
    }
    while let Some(due) = line.due() {
        line.pop(due);
        arrived.push(due);
    }
    assert_eq!(arrived, [15, 25, 25, 505, 515].map(ms));
    // What nothing waited for is lost: after a pause the next time counts.
    line.push(ms(1015), 100, 100);
    assert_eq!(line.due(), Some(ms(1025)));
}
