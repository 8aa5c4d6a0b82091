//! `ai.onnx.ml` and texts: trees, linear models, encoders, tokenizers. They take a matrix with a row for each sample; a
//! vector is one sample for most of them, so its elements must not be rows.

use super::{
    broadcast::{broadcast, plain},
    rule::{Call, Outcome, Outputs, Stop, not_from_rows, one},
    size::{Number, Size},
    value::{Tensor, Value},
};

/// The samples of a matrix, one for each row.
fn samples<'a>(call: &'a Call<'_>, place: usize) -> Outcome<&'a Size> {
    let data = call.tensor(place)?;
    let shape = data.shape()?;
    match (data.axis(), shape.as_slice()) {
        (Some(0), [rows, _]) => Ok(rows),
        (Some(_), [_]) => Err(Stop::dependent("takes a vector for one sample, so that all rows are one")),
        (Some(_), [_, _]) => Err(Stop::dependent("takes the rows for columns")),
        _ => Err(Stop::unknown("takes samples of another shape")),
    }
}

fn matrix(rows: &Size, columns: Size) -> Outcome<Value> {
    Ok(Tensor::rows(vec![rows.clone(), columns], 0)?.into())
}

/// A label and a score for each class.
pub(super) fn classifier(call: &Call<'_>) -> Outputs {
    let rows = samples(call, 0)?;
    let label = Tensor::rows(vec![rows.clone()], 0)?;
    Ok(vec![Ok(label.into()), matrix(rows, call.symbols.next())])
}

/// As many numbers as there are targets.
pub(super) fn regressor(call: &Call<'_>) -> Outputs {
    let rows = samples(call, 0)?;
    let targets = match call.node.op_type() {
        "SVMRegressor" => 1,
        "LinearRegressor" => call.int("targets", 1),
        _ => call.int("n_targets", -1),
    };
    let targets = if targets > 0 { Size::fixed(targets) } else { call.symbols.next() };
    Ok(vec![matrix(rows, targets)])
}

/// `Scaler`, `Normalizer`, `Imputer`: by columns, within each sample.
pub(super) fn by_columns(call: &Call<'_>) -> Outputs {
    samples(call, 0)?;
    one(plain(call.tensor(0)?))
}

/// `FeatureVectorizer`: the columns of all matrices side by side.
pub(super) fn features(call: &Call<'_>) -> Outputs {
    let rows = samples(call, 0)?;
    for place in 1..call.inputs.len() {
        if samples(call, place)? != rows {
            return Err(Stop::unknown("brings tensors together that have different numbers of elements for a row"));
        }
    }
    Ok(vec![matrix(rows, call.symbols.next())])
}

/// `OneHotEncoder`: a new last axis of categories.
pub(super) fn one_hot(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let mut shape = data.shape()?.clone();
    let count = |name| call.attribute(name).map_or(0, |attribute| attribute.ints.len().max(attribute.strings.len()));
    let categories = count("cats_int64s").max(count("cats_strings"));
    shape.push(Size::fixed(i64::try_from(categories).unwrap_or(i64::MAX)));
    one(Tensor::with_axis(shape, data.axis())?)
}

/// `ArrayFeatureExtractor(x, y)`: the places of the last axis of x that all elements of y say, one behind the other.
pub(super) fn extract(call: &Call<'_>) -> Outputs {
    let (data, places) = (call.tensor(0)?, call.tensor(1)?);
    let (shape, count) = (data.shape()?, Size::product(places.shape()?));
    let count = count.ok_or_else(|| Stop::unknown("gives a shape that cannot be followed"))?;
    // A vector is taken for a matrix of one row.
    let before = if shape.len() < 2 { vec![Size::ONE] } else { shape[..shape.len() - 1].to_vec() };
    let last = before.len();
    let rows = match (data.axis(), places.axis()) {
        (None, None) => None,
        (Some(rows), None) if rows + 1 < shape.len() => Some(rows),
        (Some(_), None) => return Err(Stop::dependent("picks single rows")),
        (None, Some(0)) => Some(last),
        (None, Some(rows)) => {
            let is_first = places.shape()?[..rows].iter().all(|size| size.is(1));
            if !is_first {
                return Err(Stop::unknown("takes places whose rows cannot be followed"));
            }
            Some(last)
        }
        (Some(_), Some(_)) => return Err(Stop::dependent("picks places that one row says out of other rows")),
    };
    one(Tensor::with_axis(before.into_iter().chain([count]).collect(), rows)?)
}

/// `ZipMap`: a map from class to score for each row.
pub(super) fn zip_map(call: &Call<'_>) -> Outputs {
    match samples(call, 0)? {
        rows if *rows == Size::ROWS => Ok(vec![Ok(Value::Maps)]),
        _ => Err(Stop::unknown("gives several maps for a row")),
    }
}

/// `StringNormalizer`: each text alone; but stop words are taken out of the list, and of a matrix one row is taken.
pub(super) fn normalise_text(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    if call.attribute("stopwords").is_some_and(|words| !words.strings.is_empty()) {
        return Err(Stop::dependent("takes stop words out of all rows, so that the others move up"));
    }
    if data.rank()? != 1 && !data.shape()?.first().is_some_and(|first| first.is(1)) {
        return Err(Stop::dependent("takes one row at a time"));
    }
    one(plain(data))
}

/// `StringSplit`: as many parts as the text of most parts has; how many each has.
pub(super) fn split_text(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let parts = match data.axis() {
        None => Ok(Tensor::same(None).into()),
        Some(_) => Err(Stop::dependent("makes all rows as wide as the one with most parts")),
    };
    Ok(vec![parts, Ok(plain(data).into())])
}

/// `Tokenizer`: a new axis with the words of each text, filled up to the most that there are.
pub(super) fn tokenize(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    let mut shape = data.shape()?.clone();
    shape.push(call.symbols.next());
    let padding = call.attribute("pad_value").and_then(|attribute| attribute.s.clone()).unwrap_or_default();
    one(Tensor { padding: Some(padding), ..Tensor::with_axis(shape, data.axis())? })
}

/// `TfIdfVectorizer`: counts the n-grams of each row. What only fills rows up is counted as nothing, where no n-gram
/// has it.
pub(super) fn ngrams(call: &Call<'_>) -> Outputs {
    let data = call.tensor(0)?;
    if let Some(padding) = &data.padding {
        let is_counted = call
            .attribute("pool_strings")
            .is_none_or(|pool| pool.strings.iter().any(|word| word.as_slice() == padding.as_slice()));
        if is_counted {
            return Err(Stop::dependent("counts what only makes rows as wide as the longest one"));
        }
    }
    let rows = samples(call, 0)?;
    let columns = call.ints("ngram_indexes").and_then(|indexes| indexes.iter().max()?.checked_add(1));
    let columns = columns.filter(|&columns| columns > 0).map_or_else(|| call.symbols.next(), Size::fixed);
    Ok(vec![matrix(rows, columns)])
}

/// `QLinearAdd(a, a_scale, a_zero_point, b, b_scale, b_zero_point, c_scale, c_zero_point)`, `QLinearMul`.
pub(super) fn quantised_pair(call: &Call<'_>) -> Outputs {
    call.demand_same([1, 2, 4, 5, 6, 7], "scale")?;
    one(broadcast(call.symbols, &[call.tensor(0)?, call.tensor(3)?])?)
}

/// `QLinearWhere(condition, x, x_scale, x_zero_point, y, …)`.
pub(super) fn quantised_where(call: &Call<'_>) -> Outputs {
    call.demand_same([2, 3, 5, 6, 7, 8], "scale")?;
    one(broadcast(call.symbols, &[call.tensor(0)?, call.tensor(1)?, call.tensor(4)?])?)
}

/// `QLinearConcat(scale, zero_point, x, x_scale, x_zero_point, …)`.
pub(super) fn quantised_concat(call: &Call<'_>) -> Outputs {
    let places = (2..call.inputs.len()).step_by(3);
    let settings = (0..call.inputs.len()).filter(|place| *place < 2 || (place - 2) % 3 != 0);
    call.demand_same(settings, "scale")?;
    let tensors = places.map(|place| call.tensor(place)).collect::<Outcome<Vec<_>>>()?;
    let first = tensors.first().ok_or_else(|| Stop::unknown("lacks an input"))?;
    let along = super::rule::axis(call.int("axis", 0), first.rank()?)?;
    one(super::select::joined(call, &tensors, along)?)
}

/// Sequences whose length the graph fixes.
pub(super) fn sequence(call: &Call<'_>) -> Outputs {
    let tensor = |place: usize| call.tensor(place).cloned();
    let list = |place: usize| match call.given(place) {
        Some(Value::Sequence(tensors)) => Ok(tensors.clone()),
        _ => Err(Stop::unknown("takes a sequence that cannot be followed")),
    };
    let place = |place: usize, count: usize| -> Outcome<usize> {
        let given = call.tensor(place)?;
        not_from_rows(given, "place")?;
        let at =
            given.scalar().and_then(Number::known).ok_or_else(|| Stop::unknown("computes its place while it runs"))?;
        super::rule::axis(at, count)
    };
    let value = match call.node.op_type() {
        "SequenceEmpty" => Value::Sequence(Vec::new()),
        "SequenceConstruct" => Value::Sequence((0..call.inputs.len()).map(tensor).collect::<Outcome<_>>()?),
        "SequenceInsert" => {
            let mut tensors = list(0)?;
            let at = if call.has(2) { place(2, tensors.len() + 1)? } else { tensors.len() };
            tensors.insert(at, tensor(1)?);
            Value::Sequence(tensors)
        }
        "SequenceAt" => {
            let tensors = list(0)?;
            tensors[place(1, tensors.len())?].clone().into()
        }
        "SequenceLength" => {
            let count = i64::try_from(list(0)?.len()).unwrap_or(i64::MAX);
            Tensor::of_elements(Vec::new(), vec![Number::fixed(count)]).into()
        }
        "ConcatFromSequence" => {
            let tensors = list(0)?;
            let is_new = call.int("new_axis", 0) != 0;
            let rank = tensors.first().map_or(Ok(0), Tensor::rank)? + usize::from(is_new);
            let along = super::rule::axis(call.int("axis", 0), rank)?;
            let widened = tensors.iter().map(|tensor| if is_new { widened(tensor, along) } else { Ok(tensor.clone()) });
            let widened = widened.collect::<Outcome<Vec<_>>>()?;
            super::select::joined(call, &widened.iter().collect::<Vec<_>>(), along)?.into()
        }
        _ => return Err(Stop::unknown("has no rule for rows")),
    };
    Ok(vec![Ok(value)])
}

fn widened(tensor: &Tensor, along: usize) -> Outcome<Tensor> {
    let mut shape = tensor.shape()?.clone();
    if along > shape.len() {
        return Err(Stop::unknown("joins tensors of different numbers of axes"));
    }
    shape.insert(along, Size::ONE);
    Tensor::with_axis(shape, tensor.axis().map(|rows| rows + usize::from(rows >= along)))
}
