//! Read by fours and one by one, a list is the same, with its faults.

use bytes::Bytes;
use proptest::{prelude::*, sample::select};

use super::{
    super::{cursor::Cursor, elements::tensor_by},
    *,
};
use crate::domain::{DataType, Shape};

/// What the value at `start` is read as: the elements and the place behind, or the fault.
fn read(lanes: Lanes, datatype: DataType, text: &str, start: usize, count: usize) -> Result<(Bytes, usize), String> {
    let shape = Shape::new(vec![i64::try_from(count).unwrap()]).unwrap();
    let mut cursor = Cursor::new(text).back_to(start);
    let body = Bytes::copy_from_slice(text.as_bytes());
    match tensor_by(lanes, "x", datatype, shape, &mut cursor, &body) {
        Ok(tensor) => Ok((tensor.to_raw(), cursor.at())),
        Err(fault) => Err(format!("{fault:?}")),
    }
}

fn read_both_ways(text: &str, start: usize, count: usize) {
    for datatype in [DataType::Fp32, DataType::Fp64] {
        let [one, other] = [Lanes::new(), Lanes::none()].map(|lanes| read(lanes, datatype, text, start, count));
        assert_eq!(one, other, "{datatype:?} in {}", &text[start..]);
    }
}

/// The elements of a list behind `before` bytes, which must be those that the standard library reads.
fn check_list(before: usize, numbers: &[String], comma: &str, behind: &str) {
    let text = format!("{:before$}[{}]{behind}", "", numbers.join(comma));
    read_both_ways(&text, before, numbers.len());
    let raw = |datatype| read(Lanes::new(), datatype, &text, before, numbers.len()).unwrap().0;
    let singles = numbers.iter().flat_map(|number| number.parse::<f32>().unwrap().to_le_bytes());
    assert!(raw(DataType::Fp32).iter().copied().eq(singles), "{text}");
    let doubles = numbers.iter().flat_map(|number| number.parse::<f64>().unwrap().to_le_bytes());
    assert!(raw(DataType::Fp64).iter().copied().eq(doubles), "{text}");
}

/// How many singles and doubles are read by fours from the one at `start` on, and the byte behind them.
fn by_fours(text: &str, start: usize) -> Option<[(usize, u8); 2]> {
    Lanes::new().avx2?;
    let (mut singles, mut doubles) = (Vec::new(), Vec::new());
    let one = Lanes::new().singles(text.as_bytes(), start, &mut singles);
    let other = Lanes::new().doubles(text.as_bytes(), start, &mut doubles);
    Some([(singles.len(), text.as_bytes()[one]), (doubles.len(), text.as_bytes()[other])])
}

/// A list of eight numbers of which the sixth is `number`.
fn around(number: &str) -> String {
    format!("{:16}1.5,-2.25,0.0,3,4.5,{number},6.75,7.5]{:32}", "", "")
}

#[test]
fn usual_numbers_are_read_by_fours() {
    for number in [
        "0",
        "7",
        "-0",
        "10",
        "-123456",
        "123456789012345",
        "0.5",
        "-0.0",
        "-0.25",
        "12.5",
        "-360.0",
        "0.0012345",
        "0.1234567890123",
        "1234567890123.5",
        "-1234567.1234567",
        "100000000000000",
        "10.0",
        "1000000000000.0",
    ] {
        let text = around(number);
        let Some(both) = by_fours(&text, 16) else { return };
        assert_eq!(both, [(8, b']'); 2], "{number}");
    }
}

#[test]
fn other_numbers_and_what_is_none_are_left_to_be_read_one_by_one() {
    for other in [
        "",
        "-",
        ".",
        "-.",
        "1.",
        "-1.",
        ".5",
        "-.5",
        "--1.5",
        "-1.5-",
        "1-2",
        "1..2",
        "1.2.3",
        "01.5",
        "-01",
        "00",
        "00.5",
        "-00.5",
        "09.999999999999",
        "099999999999.99",
        "0123456789012345",
        "000000000000001",
        "1234567890123456",
        "0.12345678901234",
        "1.972031056880951",
        "0.30000001192092896",
        "1e5",
        "1.5E-3",
        "+1.5",
        "1/5",
        "1:5",
        "1 5",
        " 1.5",
        "1.5 ",
        "\t1.5",
        "\n1.5",
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
        "[1.5]",
        "\"1.5\"",
        "1.5\u{e4}",
        "\u{7f}",
        "\0",
        "1\0.5",
    ] {
        let text = around(other);
        let Some(both) = by_fours(&text, 16) else { return };
        // The numbers before a letter are known to end there.
        assert!(both == [(4, b','); 2] || both == [(5, b','); 2], "{other}: {both:?}");
        read_both_ways(&format!("{:16}[{}", "", &text[16..]), 16, 8);
    }
}

#[test]
fn singles_that_are_not_certain_are_left_to_be_read_one_by_one() {
    for middle in ["16777217.0", "16777217", "-1048576.0625", "8388608.5"] {
        let text = around(middle);
        let Some(both) = by_fours(&text, 16) else { return };
        assert_eq!(both, [(4, b','), (8, b']')], "{middle}");
    }
}

#[test]
fn lists_of_any_size_are_read_wherever_they_stand() {
    let numbers: Vec<_> = (0..90_u8).map(|at| f32::from(at).sin() * 10_f32.powi(i32::from(at % 5) - 2)).collect();
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    for (comma, behind) in [(",", ""), (", ", "}"), (", ", "]}]}                                           ")] {
        for before in 0..70 {
            check_list(before, &numbers[..before + 20], comma, behind);
        }
        for count in 0..90 {
            check_list(20, &numbers[..count], comma, behind);
        }
    }
}

#[test]
fn lists_of_the_shortest_numbers_are_read() {
    for comma in [",", ", ", " ,", ",\n"] {
        check_list(33, &vec!["7".to_owned(); 600], comma, "");
    }
    read_both_ways(&format!("{:20}[{}]", "", ",".repeat(600)), 20, 601);
}

#[test]
fn no_list_is_tried_by_fours_at_each_number() {
    let mut lanes = Lanes::new();
    if lanes.avx2.is_none() {
        return;
    }
    let text = format!("{:16}{}]", "", "1e0, ".repeat(100));
    for _ in 0..2000 {
        lanes.singles(text.as_bytes(), 16, &mut Vec::new());
    }
    assert_eq!(lanes.next_rest, 64);
    // After the rest the list that goes well is found.
    let text = around("1.5");
    let tries = (0..=64).take_while(|_| lanes.singles(text.as_bytes(), 16, &mut Vec::new()) == 16).count();
    assert!(tries <= 64 && lanes.rests == 0 && lanes.next_rest == 1);
}

fn usual() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => r"-?[0-9]\.[0-9]{1,13}",
        2 => r"-?(0|[1-9][0-9]{0,6})\.[0-9]{1,9}",
        1 => r"-?(0|[1-9][0-9]{0,14})",
        // The middle of two singles.
        1 => (0x3f00_0000_u32..0x4f00_0000).prop_map(|bits| {
            f64::midpoint(f32::from_bits(bits).into(), f32::from_bits(bits + 1).into()).to_string()
        }),
    ]
}

fn unusual() -> impl Strategy<Value = String> {
    prop_oneof![
        r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?",
        r"-?[0-9]{0,3}[.]?[0-9]{0,15}",
        r"[-+.e0-9 ]{0,12}",
        r#"(null|true|\[1\.5\]|"1"|\{\}|ä|/|:|0x10)"#,
    ]
}

/// A list, of which now and then a number or a comma is of another form.
fn list() -> impl Strategy<Value = String> {
    let number = |odds: u32| prop_oneof![200 => usual(), odds => unusual()];
    let comma = |usual: &'static str, odds: u32| prop_oneof![200 => Just(usual), odds => select(vec![",", ", ", " ,", ",\n", ",  ", ",,", "", ",\t", ";", "],["])];
    let odds = || select(vec![0_u32, 1, 10, 100]);
    (odds(), odds(), select(vec![",", ", "]))
        .prop_flat_map(move |(numbers, commas, usual)| {
            prop::collection::vec((number(numbers), comma(usual, commas)), 0..120)
        })
        .prop_map(|parts| {
            let mut text: String = parts.iter().flat_map(|(number, comma)| [number.as_str(), comma]).collect();
            let last = parts.last().map_or(0, |(_, comma)| comma.len());
            text.truncate(text.len() - last);
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_list_of_usual_numbers_is_what_the_standard_library_reads(
        before in 0..100_usize,
        numbers in prop::collection::vec(usual(), 0..100),
        comma in select(vec![",", ", "]),
        behind in " {0,70}",
    ) {
        check_list(before, &numbers, comma, &behind);
    }

    #[test]
    fn any_text_is_read_as_one_number_by_one(
        before in 0..100_usize,
        list in list(),
        end in select(vec!["]", "", ",]", " ]", "]]", "}"]),
        behind in r#"[ \]}",0-9.]{0,40}"#,
        cut in 0..2000_usize,
    ) {
        let mut text = format!("{:before$}[{list}{end}{behind}", "");
        if let Some((cut, _)) = text.char_indices().nth(cut).filter(|&(cut, _)| cut > before) {
            text.truncate(cut);
        }
        let count = list.split(',').count();
        read_both_ways(&text, before, count);
    }

    /// As deep as the shape says, and of few numbers in each row.
    #[test]
    fn any_nested_list_is_read_as_one_number_by_one(
        rows in prop::collection::vec(prop::collection::vec(usual(), 1..12), 1..30),
        between in select(vec![",", ", ", ",\n  "]),
    ) {
        let rows: Vec<_> = rows.iter().map(|row| format!("[{}]", row.join(", "))).collect();
        let text = format!("{:20}[{}]", "", rows.join(between));
        read_both_ways(&text, 20, text.matches(", ").count());
    }
}
