"""Makes the exports in this directory: small models as real libraries write them. `README.md` says what each is.

Run by hand, in environments with these packages (Python 3.11); what a library does not give is left as it is:

    scikit-learn==1.9.1 skl2onnx==1.20.0 onnxmltools==1.16.0 onnxconverter-common==1.16.0 lightgbm==4.7.0
    xgboost-cpu==3.2.0 catboost==1.2.10 torch==2.15.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.32.0
    tensorflow-cpu==2.21.0 tf2onnx==1.17.0 (in an environment of its own)

    python make.py DIRECTORY sklearn trees torch quantized tensorflow
"""

import functools
import os
import pathlib
import sys
import traceback

import numpy as np

OUT = pathlib.Path(sys.argv[1])
RANDOM = np.random.default_rng(0)
FAILED = []


def export(name):
    """Runs what it decorates, which gives a model or its bytes, and writes it."""

    def run(make):
        try:
            model = make()
            data = model if isinstance(model, bytes) else model.SerializeToString()
            (OUT / f"{name}.onnx").write_bytes(data)
            print(f"{name}: {len(data)} bytes", flush=True)
        except Exception as error:
            FAILED.append(name)
            print(f"{name}: FAILED {type(error).__name__} {str(error)[:300]}", flush=True)
            if os.environ.get("TRACE"):
                traceback.print_exc()
        return make

    return run


X = RANDOM.normal(size=(200, 5)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
Y3 = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
T = (X @ RANDOM.normal(size=5)).astype(np.float32)
T2 = np.stack([T, -T], axis=1)


def sklearn():
    import pandas as pd
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn import (
        cluster, compose, decomposition, discriminant_analysis, ensemble, feature_extraction, feature_selection,
        gaussian_process, impute, linear_model, mixture, multiclass, multioutput, naive_bayes, neighbors,
        neural_network, pipeline, preprocessing, svm, tree,
    )

    def plain(name, model, target, options=None, **more):
        @export(f"sklearn_{name}")
        def _():
            model.fit(X, target) if target is not None else model.fit(X)
            return to_onnx(model, X[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3}, **more)

    no_zipmap = {"zipmap": False}
    plain("logistic", linear_model.LogisticRegression(), Y, no_zipmap)
    plain("logistic_zipmap", linear_model.LogisticRegression(), Y3)
    plain("linear", linear_model.LinearRegression(), T)
    plain("linear_two_targets", linear_model.LinearRegression(), T2)
    plain("sgd", linear_model.SGDClassifier(loss="log_loss"), Y3, no_zipmap)
    plain("ridge_classifier", linear_model.RidgeClassifier(), Y3, no_zipmap)
    plain("poisson", linear_model.PoissonRegressor(), np.abs(T))
    plain("tree", tree.DecisionTreeClassifier(max_depth=3), Y3, no_zipmap)
    plain("tree_decision_path", tree.DecisionTreeClassifier(max_depth=3), Y3, {"zipmap": False, "decision_path": True})
    plain("forest", ensemble.RandomForestClassifier(5, max_depth=3), Y3, no_zipmap)
    plain("forest_two_targets", ensemble.RandomForestRegressor(5, max_depth=3), T2)
    plain("extra_trees", ensemble.ExtraTreesRegressor(5, max_depth=3), T)
    plain("boosting", ensemble.GradientBoostingClassifier(n_estimators=5, max_depth=2), Y3, no_zipmap)
    plain("hist_boosting", ensemble.HistGradientBoostingClassifier(max_iter=5, max_depth=2), Y, no_zipmap)
    plain("ada", ensemble.AdaBoostClassifier(n_estimators=3), Y3, no_zipmap)
    plain("bagging", ensemble.BaggingClassifier(n_estimators=3), Y, no_zipmap)
    plain("voting", ensemble.VotingClassifier([("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=2))], voting="soft"), Y3, no_zipmap)
    plain("stacking", ensemble.StackingClassifier([("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=2))]), Y, no_zipmap)
    plain("svc", svm.SVC(probability=False, max_iter=50), Y3, no_zipmap)
    plain("linear_svc", svm.LinearSVC(), Y3, no_zipmap)
    plain("svr", svm.SVR(max_iter=20), T)
    plain("gaussian_nb", naive_bayes.GaussianNB(), Y3, no_zipmap)
    plain("bernoulli_nb", naive_bayes.BernoulliNB(), Y3, no_zipmap)
    small = slice(0, 30)
    for name, model, target in [
        ("knn", neighbors.KNeighborsClassifier(3), Y3),
        ("knn_regressor", neighbors.KNeighborsRegressor(3), T),
    ]:
        @export(f"sklearn_{name}")
        def _(model=model, target=target):
            model.fit(X[small], target[small])
            return to_onnx(model, X[:1], options=no_zipmap if "Class" in type(model).__name__ else None, target_opset=18)

        @export(f"sklearn_{name}_cdist")
        def _(model=model, target=target):
            model.fit(X[small], target[small])
            options = {"optim": "cdist"} | (no_zipmap if "Class" in type(model).__name__ else {})
            return to_onnx(model, X[:1], options=options, target_opset={"": 18, "com.microsoft": 1})

    @export("sklearn_gaussian_process")
    def _():
        model = gaussian_process.GaussianProcessRegressor().fit(X[small], T[small])
        return to_onnx(model, X[:1], target_opset=18)

    plain("mlp", neural_network.MLPClassifier((8,), max_iter=20), Y3, no_zipmap)
    plain("mlp_regressor", neural_network.MLPRegressor((8,), max_iter=20), T)
    plain("lda", discriminant_analysis.LinearDiscriminantAnalysis(), Y3, no_zipmap)
    plain("qda", discriminant_analysis.QuadraticDiscriminantAnalysis(), Y3, no_zipmap)
    plain("kmeans", cluster.KMeans(3, n_init=1), None)
    plain("gaussian_mixture", mixture.GaussianMixture(2), None)
    plain("pca_logistic", pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(3), linear_model.LogisticRegression()), Y, {"zipmap": False})
    plain("one_vs_rest", multiclass.OneVsRestClassifier(linear_model.LogisticRegression()), Y3, no_zipmap)
    plain("one_vs_one", multiclass.OneVsOneClassifier(linear_model.LogisticRegression()), Y3, no_zipmap)
    plain("multi_output", multioutput.MultiOutputClassifier(linear_model.LogisticRegression()), np.stack([Y, Y3], axis=1), no_zipmap)
    plain("multi_output_regressor", multioutput.MultiOutputRegressor(linear_model.Ridge()), T2)
    plain("select_scaler", pipeline.make_pipeline(preprocessing.MinMaxScaler(), feature_selection.SelectKBest(k=3), linear_model.Ridge()), T)
    plain("polynomial", pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()), T)
    plain("bins", pipeline.make_pipeline(preprocessing.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), linear_model.LogisticRegression()), Y, {"zipmap": False})
    plain("power", pipeline.make_pipeline(preprocessing.PowerTransformer(), linear_model.Ridge()), T)
    plain("normalizer", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.Normalizer(), linear_model.Ridge()), T)
    plain("knn_imputer", pipeline.make_pipeline(impute.SimpleImputer(strategy="median"), preprocessing.RobustScaler(), linear_model.Lasso()), T)

    @export("sklearn_columns")
    def _():
        frame = pd.DataFrame({"age": X[:, 0], "income": X[:, 1], "city": np.where(Y == 1, "Rome", "Oslo")})
        columns = compose.ColumnTransformer([
            ("numbers", preprocessing.StandardScaler(), ["age", "income"]),
            ("city", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ])
        model = pipeline.make_pipeline(columns, linear_model.LogisticRegression()).fit(frame, Y3)
        types = [("age", FloatTensorType([None, 1])), ("income", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1]))]
        return to_onnx(model, initial_types=types, options={"zipmap": False}, target_opset=18)

    @export("sklearn_ordinal")
    def _():
        codes = RANDOM.integers(0, 4, (200, 2))
        model = pipeline.make_pipeline(preprocessing.OrdinalEncoder(), tree.DecisionTreeRegressor(max_depth=3)).fit(codes, T)
        return to_onnx(model, initial_types=[("x", Int64TensorType([None, 2]))], target_opset={"": 18, "ai.onnx.ml": 3})

    texts = np.array(["a good day", "a bad day", "what a night it was", "good night"])
    for name, kind in [("tfidf", feature_extraction.text.TfidfVectorizer), ("count", feature_extraction.text.CountVectorizer)]:
        @export(f"sklearn_{name}")
        def _(kind=kind):
            model = pipeline.make_pipeline(kind(), linear_model.LogisticRegression()).fit(texts, [0, 1, 1, 0])
            return to_onnx(model, initial_types=[("text", StringTensorType([None, 1]))], options={"zipmap": False}, target_opset=18)

    @export("sklearn_isolation_forest")
    def _():
        model = ensemble.IsolationForest(n_estimators=3, max_samples=16, random_state=0).fit(X)
        return to_onnx(model, X[:1], target_opset={"": 18, "ai.onnx.ml": 3})

    @export("sklearn_float16")
    def _():
        from onnxconverter_common import float16
        model = neural_network.MLPRegressor((8,), max_iter=20).fit(X, T)
        return float16.convert_float_to_float16(to_onnx(model, X[:1], target_opset=18))


def trees():
    import catboost
    import lightgbm
    import onnx
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [("x", FloatTensorType([None, 5]))]
    quiet = {"n_estimators": 5, "max_depth": 2, "num_leaves": 4, "verbose": -1}
    for name, model, target in [
        ("binary", lightgbm.LGBMClassifier(**quiet), Y),
        ("classes", lightgbm.LGBMClassifier(**quiet), Y3),
        ("regressor", lightgbm.LGBMRegressor(**quiet), T),
        ("poisson", lightgbm.LGBMRegressor(objective="poisson", **quiet), np.abs(T)),
    ]:
        @export(f"lightgbm_{name}")
        def _(model=model, target=target):
            return onnxmltools.convert_lightgbm(model.fit(X, target), initial_types=types, target_opset=15, zipmap="class" not in name and "binary" not in name)

    @export("lightgbm_zipmap")
    def _():
        return onnxmltools.convert_lightgbm(lightgbm.LGBMClassifier(**quiet).fit(X, Y3), initial_types=types, target_opset=15)

    @export("lightgbm_split")
    def _():
        model = lightgbm.LGBMRegressor(**quiet).fit(X, T)
        return onnxmltools.convert_lightgbm(model, initial_types=types, target_opset=15, split=2)

    quiet = {"n_estimators": 5, "max_depth": 2}
    for name, model, target in [
        ("binary", xgboost.XGBClassifier(**quiet), Y),
        ("classes", xgboost.XGBClassifier(**quiet), Y3),
        ("regressor", xgboost.XGBRegressor(**quiet), T),
        ("forest", xgboost.XGBRFClassifier(**quiet), Y),
    ]:
        @export(f"xgboost_{name}")
        def _(model=model, target=target):
            return onnxmltools.convert_xgboost(model.fit(X, target), initial_types=types, target_opset=15)

    quiet = {"iterations": 5, "depth": 2, "verbose": 0, "allow_writing_files": False}
    for name, model, target in [
        ("binary", catboost.CatBoostClassifier(**quiet), Y),
        ("classes", catboost.CatBoostClassifier(**quiet), Y3),
        ("regressor", catboost.CatBoostRegressor(**quiet), T),
    ]:
        @export(f"catboost_{name}")
        def _(model=model, target=target):
            model.fit(X, target)
            path = OUT / "catboost.tmp"
            model.save_model(str(path), format="onnx")
            data = onnx.load(str(path))
            path.unlink()
            return data


def torch():
    import io

    import onnx
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Lambda(nn.Module):
        def __init__(self, run, *modules):
            super().__init__()
            self.run, self.parts = run, nn.ModuleList(modules)

        def forward(self, *x):
            return self.run(*self.parts, *x)

    def inline(path):
        model = onnx.load(str(path))
        for file in path.parent.glob("torch.tmp*"):
            file.unlink()
        return model

    def both(name, model, *inputs, axes=None, ways=("script", "dynamo")):
        model.eval()
        names = [f"x{index}" for index in range(len(inputs))]
        more = axes or {}
        if "script" in ways:
            @export(f"torch_script_{name}")
            def _():
                buffer = io.BytesIO()
                dynamic = {n: {0: "batch", **{a: f"{n}_{a}" for a in more.get(n, ())}} for n in names}
                torch.onnx.export(model, inputs, buffer, input_names=names, output_names=["y"], dynamic_axes={**dynamic, "y": {0: "batch"}}, opset_version=17, dynamo=False)
                return buffer.getvalue()
        if "dynamo" in ways:
            @export(f"torch_dynamo_{name}")
            def _():
                batch = torch.export.Dim("batch", min=2)
                lengths = {}
                shapes = tuple({0: batch, **{a: lengths.setdefault(a, torch.export.Dim(f"length{a}", min=3)) for a in more.get(n, ())}} for n in names)
                # A module of one signature, since shapes follow it.
                if isinstance(model, Lambda):
                    shapes = (shapes,)
                path = OUT / "torch.tmp.onnx"
                torch.onnx.export(model, inputs, str(path), input_names=names, output_names=["y"], dynamic_shapes=shapes, dynamo=True, verbose=False)
                return inline(path)

    def x(*shape):
        return torch.randn(*shape)

    both("mlp", nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3), nn.Softmax(-1)), x(4, 5))
    both("cnn", nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)), x(4, 3, 8, 8))
    both("cnn_view", Lambda(lambda c, l, a: l(F.relu(c(a)).view(-1, 4 * 6 * 6)), nn.Conv2d(3, 4, 3), nn.Linear(144, 2)), x(4, 3, 8, 8))
    both("cnn_view_size", Lambda(lambda c, l, a: l(F.relu(c(a)).view(a.size(0), -1)), nn.Conv2d(3, 4, 3), nn.Linear(144, 2)), x(4, 3, 8, 8))
    both("adaptive", nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.GELU(), nn.Linear(4, 2)), x(4, 3, 8, 8))
    both("upsample", nn.Sequential(nn.Conv2d(3, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ConvTranspose2d(2, 1, 3, stride=2)), x(4, 3, 8, 8))
    both("interpolate", Lambda(lambda c, a: F.interpolate(c(a), size=a.shape[2:], mode="nearest"), nn.Conv2d(3, 2, 3, stride=2)), x(4, 3, 8, 8), axes={"x0": (2, 3)})
    both("groupnorm", nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.PReLU(), nn.Flatten(1)), x(4, 3, 8, 8))
    both("lstm", Lambda(lambda l, h, a: h(l(a)[0][:, -1]), nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 2)), x(4, 6, 5))
    both("gru", Lambda(lambda l, h, a: h(l(a)[1][-1]), nn.GRU(5, 4, batch_first=True, bidirectional=True), nn.Linear(4, 2)), x(4, 6, 5))
    both("conv1d", nn.Sequential(nn.Conv1d(5, 4, 3, padding="same"), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten()), x(4, 5, 9))
    both("embedding_bag", Lambda(lambda e, l, a: l(e(a).mean(1)), nn.Embedding(20, 8), nn.Linear(8, 2)), torch.randint(0, 20, (4, 6)), axes={"x0": (1,)})
    both("transformer", Lambda(lambda e, t, l, a: l(t(e(a)).mean(1)), nn.Embedding(20, 8), nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1), nn.Linear(8, 2)), torch.randint(0, 20, (4, 6)), axes={"x0": (1,)})
    both("transformer_time_first", Lambda(lambda e, t, l, a: l(t(e(a).transpose(0, 1)).mean(0)), nn.Embedding(20, 8), nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1), nn.Linear(8, 2)), torch.randint(0, 20, (4, 6)), axes={"x0": (1,)})

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(20, 8), nn.Embedding(32, 8)
            self.norm, self.q, self.k, self.v, self.o = nn.LayerNorm(8), *(nn.Linear(8, 8) for _ in range(4))
            self.head = nn.Linear(8, 2)

        def forward(self, ids, mask):
            batch, length = ids.shape
            h = self.norm(self.words(ids) + self.places(torch.arange(length, device=ids.device).unsqueeze(0).expand(batch, length)))
            split = lambda t: t.view(batch, length, 2, 4).transpose(1, 2)
            q, k, v = split(self.q(h)), split(self.k(h)), split(self.v(h))
            bias = (1.0 - mask[:, None, None, :].to(h.dtype)) * -1e4
            weights = torch.softmax(q @ k.transpose(-1, -2) / 2.0 + bias, -1)
            h = h + self.o((weights @ v).transpose(1, 2).reshape(batch, length, 8))
            pooled = (h * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            return self.head(torch.tanh(h[:, 0])), F.normalize(pooled, dim=-1)

    class BertOnnx(Bert):
        pass

    bert_inputs = (torch.randint(0, 20, (4, 6)), torch.ones(4, 6, dtype=torch.int64))
    both("bert", Bert(), *bert_inputs, axes={"x0": (1,), "x1": (1,)})

    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.a, self.o = nn.Embedding(20, 8), nn.Linear(8, 24), nn.Linear(8, 20)

        def forward(self, ids):
            h = self.words(ids)
            b, t, c = h.size()
            q, k, v = self.a(h).split(c, dim=2)
            q, k, v = (z.view(b, t, 2, c // 2).transpose(1, 2) for z in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.o(y.transpose(1, 2).contiguous().view(b, t, c))

    both("gpt", Causal(), torch.randint(0, 20, (4, 6)), axes={"x0": (1,)})
    both("vit", Lambda(lambda c, l, a: l(torch.cat([a.new_zeros(a.shape[0], 1, 8), c(a).flatten(2).transpose(1, 2)], 1)[:, 0]), nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 2)), x(4, 3, 8, 8))
    both("cls_token", Lambda(lambda c, p, l, a: l(torch.cat([p.weight.expand(a.shape[0], -1, -1), c(a).flatten(2).transpose(1, 2)], 1).mean(1)), nn.Conv2d(3, 8, 4, stride=4), nn.Embedding(1, 8), nn.Linear(8, 2)), x(4, 3, 8, 8))
    both("autoencoder", nn.Sequential(nn.Linear(5, 2), nn.Tanh(), nn.Linear(2, 5)), x(4, 5))
    both("einsum", Lambda(lambda l, a, b: torch.einsum("bij,bkj->bik", l(a), b), nn.Linear(5, 5)), x(4, 3, 5), x(4, 2, 5))
    both("attention_layer", Lambda(lambda m, a: m(a, a, a)[0], nn.MultiheadAttention(8, 2, batch_first=True)), x(4, 6, 8), axes={"x0": (1,)})
    both("squeeze_excite", Lambda(lambda c, s, a: (lambda h: h * torch.sigmoid(s(h.mean((2, 3), keepdim=True))))(c(a)), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)), x(4, 3, 8, 8))
    both("pixel_shuffle", nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.PixelShuffle(2), nn.ZeroPad2d(1)), x(4, 3, 8, 8))
    both("channel_shuffle", Lambda(lambda c, a: c(a).view(a.shape[0], 2, 2, 8, 8).transpose(1, 2).reshape(a.shape[0], -1, 8, 8), nn.Conv2d(3, 4, 3, padding=1)), x(4, 3, 8, 8))
    both("masked", Lambda(lambda l, a: torch.where(a > 0, l(a), torch.zeros_like(a)), nn.Linear(5, 5)), x(4, 5))
    both("topk", Lambda(lambda l, a: torch.topk(l(a), 3)[0], nn.Linear(5, 6)), x(4, 5))
    both("two_inputs", Lambda(lambda l, a, b: l(torch.cat([a, b], 1)), nn.Linear(8, 2)), x(4, 5), x(4, 3))
    # Rows that touch each other.
    both("mixes_batch_mean", Lambda(lambda l, a: l(a) - l(a).mean(0), nn.Linear(5, 3)), x(4, 5))
    both("mixes_softmax", Lambda(lambda l, a: torch.softmax(l(a), 0), nn.Linear(5, 3)), x(4, 5))
    both("mixes_similarity", Lambda(lambda l, a: l(a) @ l(a).T, nn.Linear(5, 3)), x(4, 5))
    both("mixes_attention", Lambda(lambda m, a: m(a, a, a)[0], nn.MultiheadAttention(8, 2)), x(4, 6, 8))
    both("mixes_max", Lambda(lambda l, a: l(a) / l(a).abs().max(), nn.Linear(5, 3)), x(4, 5))
    both("mixes_count", Lambda(lambda l, a: l(a) / a.shape[0], nn.Linear(5, 3)), x(4, 5))
    both("mixes_roll", Lambda(lambda l, a: l(torch.roll(a, 1, 0)), nn.Linear(5, 3)), x(4, 5))
    both("mixes_cumsum", Lambda(lambda l, a: l(a).cumsum(0), nn.Linear(5, 3)), x(4, 5))
    both("mixes_lstm", Lambda(lambda l, a: l(a)[0], nn.LSTM(5, 4)), x(4, 6, 5))


def quantized():
    """Of models that are there already."""
    import onnx
    import onnxruntime as ort
    from onnxconverter_common import float16
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.preprocess import quant_pre_process

    shapes = {"mlp": (4, 5), "cnn": (4, 3, 8, 8), "cnn_view": (4, 3, 8, 8), "attention_layer": (4, 6, 8), "lstm": (4, 6, 5), "upsample": (4, 3, 8, 8)}

    class Reader(CalibrationDataReader):
        def __init__(self, name, shape):
            self.rows = iter([{name: RANDOM.normal(size=shape).astype(np.float32)} for _ in range(3)])

        def get_next(self):
            return next(self.rows, None)

    temporary = OUT / "quantized.tmp.onnx"

    def take():
        model = onnx.load(str(temporary))
        temporary.unlink()
        return model

    for name, shape in shapes.items():
        source = str(OUT / f"torch_script_{name}.onnx")

        @export(f"quantized_dynamic_{name}")
        def _():
            quantize_dynamic(source, str(temporary), weight_type=QuantType.QUInt8)
            return take()

        for form in QuantFormat.QDQ, QuantFormat.QOperator:
            @export(f"quantized_static_{form.name.lower()}_{name}")
            def _(form=form):
                quant_pre_process(source, str(temporary), skip_symbolic_shape=True)
                quantize_static(str(temporary), str(temporary), Reader("x0", shape), quant_format=form, per_channel=name == "cnn")
                return take()

        @export(f"float16_{name}")
        def _():
            return float16.convert_float_to_float16(onnx.load(source))

    @export("quantized_4bit_mlp")
    def _():
        quantizer = MatMulNBitsQuantizer(onnx.load(str(OUT / "torch_script_transformer.onnx")), block_size=16)
        quantizer.process()
        return quantizer.model.model

    for name in "mlp", "cnn", "bert", "transformer", "gpt", "attention_layer", "lstm":
        for level in "EXTENDED", "ALL":
            @export(f"optimized_{level.lower()}_{name}")
            def _(level=level):
                options = ort.SessionOptions()
                options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
                options.optimized_model_filepath = str(temporary)
                ort.InferenceSession(str(OUT / f"torch_script_{name}.onnx"), options)
                return take()

    @export("optimized_transformers_bert")
    def _():
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_model
        return optimize_model(str(OUT / "torch_script_bert.onnx"), "bert", num_heads=2, hidden_size=8, optimization_options=FusionOptions("bert")).model


def tensorflow():
    import tensorflow as tf
    import tf2onnx

    k = tf.keras
    k.utils.set_random_seed(0)

    def keras(name, shape, layers, dtype="float32"):
        @export(f"tf2onnx_{name}")
        def _():
            inputs = k.Input(shape, dtype=dtype)
            outputs = functools.reduce(lambda h, layer: layer(h), layers, inputs)
            model = k.Model(inputs, outputs)
            run = tf.function(lambda a: model(a, training=False), input_signature=[tf.TensorSpec([None, *shape], dtype)])
            return tf2onnx.convert.from_function(run, input_signature=run.input_signature, opset=17)[0]

    l = k.layers
    keras("mlp", (5,), [l.Dense(8, activation="relu"), l.BatchNormalization(), l.Dropout(0.5), l.Dense(3, activation="softmax")])
    keras("cnn", (8, 8, 3), [l.Conv2D(4, 3, activation="relu"), l.MaxPool2D(), l.Flatten(), l.Dense(2)])
    keras("separable", (8, 8, 3), [l.SeparableConv2D(4, 3), l.GlobalAveragePooling2D(), l.Dense(2)])
    keras("transposed", (4, 4, 3), [l.Conv2DTranspose(2, 3, strides=2), l.UpSampling2D(2, interpolation="bilinear")])
    keras("lstm", (6, 5), [l.LSTM(4), l.Dense(2)])
    keras("gru", (6, 5), [l.Bidirectional(l.GRU(4, return_sequences=True)), l.GlobalMaxPooling1D()])
    keras("embedding", (None,), [l.Embedding(20, 8), l.GlobalAveragePooling1D(), l.Dense(2)], "int32")
    keras("layer_norm", (6, 8), [l.LayerNormalization(), l.Conv1D(4, 3, padding="causal"), l.Reshape((-1,)), l.Dense(2)])

    @export("tf2onnx_attention")
    def _():
        inputs = k.Input((6, 8))
        attended = l.MultiHeadAttention(2, 4)(inputs, inputs)
        model = k.Model(inputs, l.Dense(2)(l.GlobalAveragePooling1D()(l.Add()([inputs, attended]))))
        run = tf.function(lambda a: model(a, training=False), input_signature=[tf.TensorSpec([None, 6, 8], "float32")])
        return tf2onnx.convert.from_function(run, input_signature=run.input_signature, opset=17)[0]

    def function(name, run, *shapes):
        @export(f"tf2onnx_{name}")
        def _():
            signature = [tf.TensorSpec([None, *shape], "float32") for shape in shapes]
            return tf2onnx.convert.from_function(tf.function(run, input_signature=signature), input_signature=signature, opset=17)[0]

    function("reshape", lambda a: tf.reshape(a, [tf.shape(a)[0], 2, 3]) * 2.0, (6,))
    function("broadcast", lambda a: a + tf.zeros_like(a) + tf.ones([tf.shape(a)[0], 1]), (6,))
    function("mixes_mean", lambda a: a - tf.reduce_mean(a), (6,))
    function("mixes_matmul", lambda a: tf.matmul(a, a, transpose_b=True), (6,))


for part in sys.argv[2:]:
    {"sklearn": sklearn, "trees": trees, "torch": torch, "quantized": quantized, "tensorflow": tensorflow}[part]()
print("failed:", *FAILED)
