//! Rows that are put together are those that came, in their order.

use proptest::prelude::*;

use super::*;

fn tensor(name: &str, dimensions: &[i64], elements: Elements) -> Tensor {
    let shape = Shape::new(dimensions.to_vec()).unwrap();
    match elements {
        Elements::Plain { datatype, bytes } => Tensor::plain(name, datatype, shape, bytes).unwrap(),
        Elements::Text(elements) => Tensor::text(name, shape, elements).unwrap(),
    }
}

fn bytes(name: &str, dimensions: &[i64], datatype: DataType, from: u8) -> Tensor {
    let count = Shape::new(dimensions.to_vec()).unwrap().elements() * datatype.size().unwrap();
    let bytes = (0..=u8::MAX).cycle().skip(from.into()).take(count).collect();
    tensor(name, dimensions, Elements::Plain { datatype, bytes })
}

fn texts(name: &str, texts: &[&str]) -> Tensor {
    let elements = texts.iter().map(|text| Bytes::from(text.as_bytes().to_vec())).collect();
    tensor(name, &[i64::try_from(texts.len()).unwrap()], Elements::Text(elements))
}

/// A request of a version.
struct Request {
    watch: Arc<Watch>,
    version: Version,
    inputs: Arc<[Tensor]>,
    outputs: Arc<[Tensor]>,
    parameters: Vec<(Arc<str>, String)>,
}

impl Request {
    fn new(watch: &Arc<Watch>, inputs: Vec<Tensor>, outputs: Vec<Tensor>) -> Self {
        let version = Version::new(1).unwrap();
        let (inputs, outputs) = (inputs.into(), outputs.into());
        Self { watch: Arc::clone(watch), version, inputs, outputs, parameters: Vec::new() }
    }

    fn observation(&self) -> Observation<'_> {
        let Self { watch, version, inputs, outputs, parameters } = self;
        Observation { watch, stable: None, version: *version, inputs, outputs, parameters }
    }
}

proptest! {
    #[test]
    fn drained_rows_are_those_that_were_added_one_behind_the_other(
        requests in prop::collection::vec((1_i64..5, any::<u8>(), prop::collection::vec("[a-zé]{0,9}", 5)), 1..20),
    ) {
        let watch = Arc::new(Watch::default());
        let requests: Vec<_> = requests.iter().map(|(rows, from, words)| {
            let words: Vec<_> = words.iter().take(usize::try_from(*rows).unwrap()).map(|word| &**word).collect();
            let inputs = vec![bytes("x", &[*rows, 3], DataType::Fp32, *from), texts("s", &words)];
            Request::new(&watch, inputs, vec![bytes("y", &[*rows], DataType::Int64, *from)])
        }).collect();
        let mut batch = RowBatch::like(requests[0].observation());
        // The memory of the first rows is used again for the second.
        for _ in 0..2 {
            for request in &requests {
                let (rows, _) = is_small(request.observation()).unwrap();
                prop_assert!(batch.is_like(request.observation()));
                batch.add(request.observation(), rows);
            }
            let rows: usize = requests.iter().map(|request| request.inputs[0].shape().rows()).sum();
            prop_assert_eq!((batch.rows(), batch.requests()), (rows, requests.len() as u64));
            let raw = |of: &dyn Fn(&Request) -> Bytes| requests.iter().flat_map(|request| of(request).to_vec()).collect::<Vec<_>>();
            batch.drain(|origin, answered| {
                assert!(Arc::ptr_eq(&origin.watch, &watch));
                let ([x, s], [y]) = (answered.inputs, answered.outputs) else { panic!("{answered:?}") };
                let rows = i64::try_from(rows).unwrap();
                assert_eq!((x.shape().dimensions(), s.shape().dimensions(), y.shape().dimensions()), (&[rows, 3][..], &[rows][..], &[rows][..]));
                assert_eq!((x.name(), s.name(), y.name(), y.datatype()), ("x", "s", "y", DataType::Int64));
                assert_eq!(x.to_raw(), raw(&|request| request.inputs[0].to_raw()));
                assert_eq!(s.to_raw(), raw(&|request| request.inputs[1].to_raw()));
                assert_eq!(y.to_raw(), raw(&|request| request.outputs[0].to_raw()));
            });
            prop_assert_eq!((batch.rows(), batch.requests()), (0, 0));
        }
    }
}

#[test]
fn scalar_is_a_row_of_one_column() {
    let watch = Arc::new(Watch::default());
    let scalar = Request::new(&watch, vec![bytes("x", &[], DataType::Uint8, 7)], vec![]);
    let rows = Request::new(&watch, vec![bytes("x", &[2], DataType::Uint8, 8)], vec![]);
    let mut batch = RowBatch::like(scalar.observation());
    for request in [&scalar, &rows] {
        assert!(batch.is_like(request.observation()));
        batch.add(request.observation(), is_small(request.observation()).unwrap().0);
    }
    batch.drain(|_, answered| assert_eq!(answered.inputs, [bytes("x", &[3], DataType::Uint8, 7)]));
}

#[test]
fn only_rows_of_one_origin_and_one_form_are_put_together() {
    let watch = Arc::new(Watch::default());
    let x = || bytes("x", &[2, 3], DataType::Fp32, 0);
    let request = |inputs, outputs| Request::new(&watch, inputs, outputs);
    let batch = RowBatch::like(request(vec![x()], vec![]).observation());
    let is_like = |request: Request| batch.is_like(request.observation());
    assert!(is_like(request(vec![x()], vec![])));
    assert!(is_like(request(vec![bytes("x", &[1, 3], DataType::Fp32, 9)], vec![])));
    assert!(!is_like(request(vec![bytes("x", &[2, 4], DataType::Fp32, 0)], vec![])));
    assert!(!is_like(request(vec![bytes("x", &[2, 3], DataType::Int32, 0)], vec![])));
    assert!(!is_like(request(vec![bytes("y", &[2, 3], DataType::Fp32, 0)], vec![])));
    assert!(!is_like(request(vec![texts("x", &["a", "b"])], vec![])));
    assert!(!is_like(request(vec![x()], vec![x()])));
    assert!(!is_like(request(vec![], vec![x()])));
    assert!(!is_like(Request::new(&Arc::default(), vec![x()], vec![])));
    assert!(!is_like(Request { version: Version::new(2).unwrap(), ..request(vec![x()], vec![]) }));
    assert!(!is_like(Request { parameters: vec![("country".into(), "DE".into())], ..request(vec![x()], vec![]) }));
    let of_canary = request(vec![x()], vec![]);
    assert!(!batch.is_like(Observation { stable: Some(&watch), ..of_canary.observation() }));
}

#[test]
fn large_empty_and_uneven_requests_are_not_put_together() {
    let watch = Arc::new(Watch::default());
    let is_small = |inputs, outputs| is_small(Request::new(&watch, inputs, outputs).observation());
    let row = |columns| bytes("x", &[1, columns], DataType::Uint8, 0);
    assert_eq!(is_small(vec![row(4000)], vec![row(96)]), Some((1, 4096)));
    assert_eq!(is_small(vec![row(4000)], vec![row(97)]), None);
    assert_eq!(is_small(vec![row(0)], vec![]), None);
    assert_eq!(is_small(vec![texts("s", &["a", "b"])], vec![row(1)]), None);
    assert_eq!(is_small(vec![], vec![row(1)]), None);
}
