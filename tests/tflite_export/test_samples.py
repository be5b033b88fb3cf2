"""Inputs that files are verified with."""

import keras
import numpy as np
import pytest

from tflite_export.graph import trace
from tflite_export.samples import given_inputs, random_inputs, whole_batches


def ids_and_features():
    """Ids that two embeddings read, one through a reshape; a float input; a uint8 image."""
    ids = keras.Input((4,), dtype="int32", name="ids")
    features = keras.Input((3,), name="features")
    image = keras.Input((2, 2, 1), dtype="uint8", name="image")
    wide = keras.layers.Embedding(9, 2, name="wide")(ids)
    narrow = keras.layers.Embedding(5, 2, name="narrow")(keras.layers.Reshape((2, 2))(ids))
    pixels = keras.layers.Rescaling(1 / 255)(image)
    parts = [keras.layers.Flatten()(x) for x in (wide, narrow, pixels)]
    outputs = keras.layers.Concatenate()([*parts, features])
    return keras.Model([ids, features, image], outputs)


def test_random_ids_are_rows_of_every_embedding_that_reads_them():
    model = ids_and_features()
    ids, features, image = random_inputs(model, trace(model), 200)
    assert ids.dtype == np.int32
    assert set(np.unique(ids)) == set(range(5))
    assert features.dtype == np.float32
    assert features.min() < 0 < features.max()
    assert image.dtype == np.uint8
    assert 0 <= image.min() < image.max() <= 127
    model([ids, features, image])  # and the model takes them


def test_random_inputs_are_the_same_each_time():
    model = ids_and_features()
    for a, b in zip(*(random_inputs(model, trace(model), 3) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_inputs_keep_to_the_range_of_a_sample():
    model = ids_and_features()
    given = given_inputs(model, [
        np.array([[1, 2, 3, 3]]),
        np.array([[-2.0, 5.0, 1.0]]),
        np.full((1, 2, 2, 1), 200),
    ])  # fmt: skip
    ids, features, image = random_inputs(model, trace(model), 300, given)
    assert set(np.unique(ids)) == set(range(5))  # all rows, not only those of the sample
    assert -2 <= features.min() < -1.5
    assert 4.5 < features.max() <= 5
    assert set(np.unique(image)) == {200}


def test_an_open_axis_takes_the_length_of_the_sample():
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    (free,) = random_inputs(model, trace(model), 2)
    (like,) = random_inputs(model, trace(model), 2, [np.ones((1, 7, 2), np.float32)])
    assert free.shape == (2, 32, 2)
    assert like.shape == (2, 7, 2)


def test_a_float_input_of_ids_gets_whole_numbers():
    inputs = keras.Input((6,), name="ids")  # Keras casts them
    model = keras.Model(inputs, keras.layers.Embedding(3, 2)(inputs))
    (ids,) = random_inputs(model, trace(model), 50)
    assert set(np.unique(ids)) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("abc", "expected arrays of numbers"),
        ([np.ones((2, 3))], "expected 2 inputs, got 1"),
        ([np.ones((2, 3)), np.ones((2, 5))], r"input 'b': expected shape \(samples, 4\), got"),
        ([np.ones((0, 3)), np.ones((0, 4))], r"input 'a': expected shape \(samples, 3\), got"),
        ([np.ones((2, 3)), np.ones((3, 4))], "as many samples of each input"),
        ([np.ones((2, 3)), np.full((2, 4), np.inf)], "finite sample"),
        ([np.ones((2, 3)), np.full((2, 4), "x")], "expected arrays of numbers"),
    ],
)
def test_samples_that_do_not_fit(sample, message):
    inputs = [keras.Input((n,), name=name) for n, name in ((3, "a"), (4, "b"))]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    with pytest.raises(ValueError, match=message):
        given_inputs(model, sample)


def test_dictionaries_go_by_name():
    inputs = {name: keras.Input((n,), name=name) for n, name in ((3, "b"), (4, "a"))}
    model = keras.Model(inputs, keras.layers.Concatenate()(list(inputs.values())))
    sample = {"a": np.zeros((1, 4)), "b": np.ones((1, 3))}
    shapes = [a.shape[1] for a in given_inputs(model, sample)]
    assert shapes == [t.shape[1] for t in keras.tree.flatten(model.inputs)]


def test_whole_batches_repeat_the_samples():
    x = np.arange(3)[:, None]
    assert whole_batches([x], None)[0] is x
    assert whole_batches([x], 2)[0].ravel().tolist() == [0, 1, 2, 0]
