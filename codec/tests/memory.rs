//! An encoder and a decoder that are used again allocate no memory, in any mode.

mod generate;

use narrows_codec::{Choice, Decoder, Encoder, GeometryId, LevelId, Mode, Shape, Tables};

#[test]
fn an_encoder_and_a_decoder_that_are_used_again_allocate_nothing() {
    let shape = Shape::new(4, 24, 18).unwrap();
    let tables = Tables::parse(&generate::tables(9, 4, 1, 12)).unwrap();
    let features = [0, 100, 7].map(|outliers| generate::feature(4, shape, outliers));
    let choices = Mode::ALL.map(Choice::Only).into_iter().chain([Choice::Auto, Choice::Within(11)]);
    for choice in choices {
        let mut encoder = Encoder::new().truncatable(true);
        let mut decoder = Decoder::new();
        let (mut packet, mut symbols) = (Vec::new(), Vec::new());
        let mut round = || {
            for feature in &features {
                encoder.encode(&tables, GeometryId(0), LevelId(0), choice, feature, &mut packet).unwrap();
                decoder.decode_into(&tables, &[shape], &packet, &mut symbols).unwrap();
                assert!(symbols == feature.symbols());
            }
        };
        (0..3).for_each(|_| round());
        let allocated = allocation_counter::measure(|| (0..3).for_each(|_| round()));
        assert_eq!(allocated.count_total, 0, "{choice:?}");
    }
}
