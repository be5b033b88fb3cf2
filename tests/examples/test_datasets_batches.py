"""Batches are functions of the step; augmentation; evaluation sees each image once."""

import threading
import time

import numpy as np
import pytest
from example_modules import example

datasets = example("datasets")
source = example("datasets.source")

COUNT = 23


@pytest.fixture
def images():
    """Image i is a block of value i, with label i."""
    values = np.arange(COUNT, dtype=np.uint8)[:, None, None, None]
    return source.Arrays(np.tile(values, (1, 6, 5, 2)), np.arange(COUNT), white=1)


@pytest.fixture
def pictures():
    """Images of noise."""
    rng = np.random.default_rng(0)
    return source.Arrays(rng.integers(0, 256, (COUNT, 6, 5, 2), np.uint8), np.arange(COUNT))


def equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_an_epoch_shows_each_image_at_most_once(images):
    batches = datasets.Batches(images, batch_size=4, seed=5)
    assert batches.steps_per_epoch == 5
    dropped = set()
    for epoch in range(8):
        seen = []
        for step in range(5 * epoch, 5 * epoch + 5):
            x, y = batches.batch(step)
            assert x.shape == (4, 6, 5, 2)
            assert (x.dtype, y.dtype) == (np.float32, np.int32)
            assert np.all(x == y[:, None, None, None])
            seen += y.tolist()
        assert len(set(seen)) == 20
        dropped |= set(range(COUNT)) - set(seen)
    assert len(dropped) > 9  # not always the same


def test_order_depends_on_seed_and_epoch(images):
    def order(seed, epoch):
        batches = datasets.Batches(images, 23, seed)
        return batches.batch(epoch)[1].tolist()

    orders = [order(s, e) for s in (0, 1, 2) for e in (0, 1, 2)]
    assert len(set(map(tuple, orders))) == 9
    assert order(1, 2) == order(1, 2)


@pytest.mark.parametrize("augment", [None, {"pad": 2, "flip": True}])
def test_a_step_gives_its_batch_whatever_came_before(pictures, augment):
    augment = augment and datasets.Augment(**augment)
    forward = datasets.Batches(pictures, 4, 7, augment)
    found = [forward.batch(step) for step in range(17)]
    backward = datasets.Batches(pictures, 4, 7, augment)
    for step in (16, 3, 9, 3, 0):
        equal(backward.batch(step), found[step])


def test_each_step_is_augmented_in_its_own_way():
    picture = np.random.default_rng(0).integers(0, 256, (1, 6, 5, 2), np.uint8)
    same = source.Arrays(np.repeat(picture, 8, 0), np.arange(8))
    batches = datasets.Batches(same, 4, 0, datasets.Augment(2, flip=True))
    first, second = (batches.batch(step)[0] for step in (0, 1))
    assert not np.array_equal(first, second)


def test_workers_share_a_batch(pictures):
    batches = datasets.Batches(pictures, 12, 0, datasets.Augment(1, flip=True))
    for step in (0, 1, 5):
        whole = batches.batch(step)
        for workers in (1, 2, 3, 4):
            parts = [batches.batch(step, worker, workers) for worker in range(workers)]
            assert {len(x) for x, _ in parts} == {12 // workers}
            equal([np.concatenate(rows) for rows in zip(*parts, strict=True)], whole)


@pytest.mark.parametrize(("worker", "workers"), [(0, 1), (2, 3)])
def test_pipelines_give_the_batches_of_their_steps(pictures, worker, workers):
    batches = datasets.Batches(pictures, 6, 1, datasets.Augment(2, flip=True))
    expected = [batches.batch(step, worker, workers) for step in range(2, 40)]
    pipeline = batches.tf_dataset(2, 40, worker, workers)
    images, labels = pipeline.element_spec
    assert images.shape.as_list() == [6 // workers, 6, 5, 2]
    assert labels.shape.as_list() == [6 // workers]
    for found in (list(pipeline), list(batches.as_numpy(2, 40, worker, workers))):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            equal(one, other)
    assert not list(batches.tf_dataset(5, 5))


def test_a_generator_may_be_left_early(pictures):
    made = []

    def pixels(index):
        made.append(index)
        return np.zeros((6, 5, 2), np.uint8)

    batches = datasets.Batches(source.Lazy(pixels, pictures.labels, (6, 5, 2)), 1)
    threads = threading.active_count()
    generator = batches.as_numpy(0, 10**9)
    next(generator)
    time.sleep(0.1)  # so that threads without a bound would make more
    generator.close()
    assert threading.active_count() == threads
    assert 1 <= len(made) < 10


def test_an_error_in_a_pipeline_names_the_file(pictures):
    def broken(index):
        raise ValueError(f"file 'image{index}.png': damaged")

    batches = datasets.Batches(source.Lazy(broken, pictures.labels, (6, 5, 2)), 1)
    with pytest.raises(Exception, match=r"file 'image\d+\.png': damaged"):
        list(batches.tf_dataset(0, 1))
    with pytest.raises(ValueError, match=r"^file 'image\d+\.png': damaged$"):
        list(batches.as_numpy(0, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"batch_size": 24}, "one batch of 24 images for training, got 23"),
        ({"seed": -1}, "seed of at least 0"),
    ],
)
def test_bad_batches(images, arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.Batches(images, **{"batch_size": 4, **arguments})


@pytest.mark.parametrize(("worker", "workers"), [(0, 3), (2, 2), (-1, 2), (0, 0)])
def test_workers_must_divide_the_batch(images, worker, workers):
    batches = datasets.Batches(images, 4)
    with pytest.raises(ValueError, match="divides into equal parts"):
        batches.batch(0, worker, workers)
    with pytest.raises(ValueError, match="divides into equal parts"):
        batches.tf_dataset(0, 1, worker, workers)
    with pytest.raises(ValueError, match="divides into equal parts"):
        batches.as_numpy(0, 1, worker, workers)
    with pytest.raises(ValueError, match="divides 2"):
        datasets.EvaluationBatches(images, 4, 2).batch(0, worker, workers)


def test_augmentation_by_hand():
    image = np.array([[1, 2, 3], [4, 5, 6]], np.float32)[None, :, :, None]
    augment = datasets.Augment(pad=1, flip=True)

    def result(*drawn):
        return augment.apply(image, np.array([drawn]))[0, :, :, 0].tolist()

    assert result(1, 1, 0) == [[1, 2, 3], [4, 5, 6]]
    assert result(1, 1, 1) == [[3, 2, 1], [6, 5, 4]]
    assert result(0, 1, 0) == [[0, 0, 0], [1, 2, 3]]
    assert result(2, 2, 0) == [[5, 6, 0], [0, 0, 0]]
    assert result(1, 0, 1) == [[0, 3, 2], [0, 6, 5]]


def test_what_is_drawn_covers_all_shifts_and_both_sides():
    drawn = datasets.Augment(pad=2, flip=True).draw(np.random.default_rng(0), 4000)
    for column, values in enumerate((5, 5, 2)):
        counts = np.bincount(drawn[:, column])
        assert len(counts) == values
        assert counts.min() > 0.85 * 4000 / values  # five deviations
    still = datasets.Augment().draw(np.random.default_rng(0), 100)
    assert not still.any()


def test_augmentation_keeps_channels_and_labels_together(images):
    batches = datasets.Batches(images, 23, 0, datasets.Augment(pad=0, flip=True))
    x, y = batches.batch(3)
    assert np.all(x == y[:, None, None, None])


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match="pad of at least 0"):
        datasets.Augment(pad=-1)


@pytest.mark.parametrize(("size", "multiple"), [(4, 1), (4, 2), (8, 8), (23, 1), (32, 4), (100, 1)])
def test_evaluation_counts_each_image_once(images, size, multiple):
    batches = datasets.EvaluationBatches(images, size, multiple)
    assert batches.steps == -(-COUNT // size)
    found = list(batches.as_numpy())
    assert all(len(x) % multiple == 0 and len(x) <= size for x, _, _ in found)
    x, y, weight = (np.concatenate(rows) for rows in zip(*found, strict=True))
    assert weight.dtype == np.float32
    assert set(weight.tolist()) <= {0.0, 1.0}
    assert y[weight == 1].tolist() == list(range(COUNT))
    assert np.all(x == y[:, None, None, None])
    assert np.all(y[weight == 0] == COUNT - 1)
    assert len(y) < COUNT + multiple
    if multiple == 1:
        assert weight.all()


def test_workers_share_evaluation(images):
    batches = datasets.EvaluationBatches(images, 8, 4)
    for workers in (1, 2, 4):
        for step in range(batches.steps):
            parts = [batches.batch(step, worker, workers) for worker in range(workers)]
            assert len({len(x) for x, _, _ in parts}) == 1
            equal([np.concatenate(rows) for rows in zip(*parts, strict=True)], batches.batch(step))
        pipeline = list(batches.tf_dataset(workers - 1, workers))
        for step, found in enumerate(pipeline):
            equal(found, batches.batch(step, workers - 1, workers))


def test_shapes_are_known_where_all_batches_are_whole(images):
    def rows(size):
        spec = datasets.EvaluationBatches(images, size).tf_dataset().element_spec
        return [s.shape[0] for s in spec]

    assert rows(23) == [23, 23, 23]
    assert rows(4) == [None, None, None]


def test_bad_evaluation_batches(images):
    with pytest.raises(ValueError, match="multiple of 3"):
        datasets.EvaluationBatches(images, 4, 3)
    with pytest.raises(ValueError, match="at least one image"):
        datasets.EvaluationBatches(source.Subset(images, np.arange(0)), 4)
