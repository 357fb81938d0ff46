"""What the progress bar says."""

from bm.core.progress import progress


def test_counts_are_whole_numbers() -> None:
    with progress(range(1200), "preparing", "recording") as bar:
        bar.update(2)
        assert " 2/1200 [" in str(bar)
        assert "recording" in str(bar)


def test_bytes_are_short_numbers() -> None:
    with progress((), "Downloading", "B", total=3_000_000) as bar:
        bar.update(1_500_000)
        assert " 1.50M/3.00M [" in str(bar)


def test_items_of_several_units_count_as_so_many() -> None:
    with progress(range(10), "train", "segment", units_per_item=256) as bar:
        bar.update(5)
        assert " 1280/2560 [" in str(bar)
