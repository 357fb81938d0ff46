"""The probability of each word while a sentence goes by."""

import numpy as np
import pytest
import torch
from small_splits import GAP, make_dataset, perfect

from bm.core.messages import DataError
from bm.evaluation import SegmentFeatures
from bm.evaluation.course import word_course
from bm.segments import SegmentBatch

STORY = [(f"sentence {n // 5}", n % 5, f"word{n % 8}") for n in range(20)]
RATE = 2.0


def what_is_heard(strength: float):
    """Estimates that are the features under the window: right at onsets, mixed between them."""

    def predict(batch: SegmentBatch) -> SegmentFeatures:
        return SegmentFeatures(strength * batch.features, batch.row)

    return predict


def test_each_word_is_most_probable_at_its_onset():
    dataset = make_dataset([STORY, STORY])
    course = word_course(dataset, what_is_heard(30.0), perfect, RATE, 1, "sentence 2", step=0.5)
    assert course.words == ["word2", "word3", "word4", "word5", "word6"]
    np.testing.assert_allclose(course.onsets, GAP / RATE * np.arange(5))
    assert course.probabilities.shape == (5, len(course.times))
    at_onset = [int(np.flatnonzero(course.times == onset)[0]) for onset in course.onsets]
    np.testing.assert_allclose(course.probabilities[:, at_onset], np.eye(5), atol=0.01)
    counts = {f"word{n}": sum(word == f"word{n}" for _, _, word in STORY) for n in range(8)}
    assert course.chances.tolist() == pytest.approx([counts[word] / 20 for word in course.words])


def test_candidates_of_one_word_share_their_probability():
    dataset = make_dataset([STORY])

    def says_nothing(batch: SegmentBatch) -> SegmentFeatures:
        return SegmentFeatures(torch.zeros_like(batch.features), batch.row)

    course = word_course(dataset, says_nothing, perfect, RATE, 0, "sentence 0", 0.5, batch_size=4)
    expected = np.repeat(course.chances[:, None], len(course.times), axis=1)
    np.testing.assert_allclose(course.probabilities, expected, rtol=1e-5)
    assert course.times[0] == 0.0  # nothing was recorded before
    assert course.times[-1] == course.onsets[-1] + 0.5


def test_windows_that_are_rejected_have_no_probability():
    dataset = make_dataset([STORY])

    def rejects_the_first(batch: SegmentBatch) -> SegmentFeatures:
        kept = batch.row > 0
        return SegmentFeatures(batch.features[kept], batch.row[kept])

    course = word_course(dataset, rejects_the_first, perfect, RATE, 0, "sentence 0", step=0.5)
    assert np.isnan(course.probabilities[:, 0]).all()
    assert np.isfinite(course.probabilities[:, 1:]).all()


def test_unknown_sentence_and_too_short_step_are_refused():
    dataset = make_dataset([STORY])
    with pytest.raises(DataError, match="recording 0 is anchored in 'nowhere'"):
        word_course(dataset, perfect, perfect, RATE, 0, "nowhere")
    with pytest.raises(ValueError, match=r"step=0\.1 s is less than a sample. Choose 0\.5"):
        word_course(dataset, perfect, perfect, RATE, 0, "sentence 0", step=0.1)
