import os
import struct

import google_crc32c
import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from pipeline.errors import RawDataError
from pipeline.extras.demo.files import tfrecord as framed
from pipeline.files.formats import tfrecords
from pipeline.files.formats.tfrecords import FOOTER, HEADER, MAX_BYTES, read, spans
from tests.hostile import memory_peak
from tests.raising import raw_refuses

MIB = 1 << 20


def header(length):
    """Of a record with as many bytes of data."""
    stored = struct.pack("<Q", length)
    bits = f"{google_crc32c.value(stored):032b}"
    return stored + struct.pack("<I", (int(bits[-15:] + bits[:-15], 2) + 0xA282EAD8) % 2**32)


THREE = [b"the first", b"", b"the third record"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "three.tfrecord"
    path.write_bytes(b"".join(map(framed, THREE)))
    return path


def readable(file):
    """Data of the records that can be read, and what is wrong with the others."""
    data, problems = [], []
    for start, stop in spans(file):
        try:
            data.append(read(file, start, stop))
        except RawDataError as error:
            problems.append(str(error))
    return data, problems


@pytest.mark.promise("problems of InstaVariety")
def test_tensorboard_s_writer_is_understood(tmp_path):
    file = tmp_path / "events"
    with file.open("wb") as stream:
        writer = RecordWriter(stream)
        for data in THREE:
            writer.write(data)
    assert readable(file) == (THREE, [])


def test_a_byte_changed_anywhere_never_passes_for_data(file):
    whole = file.read_bytes()
    length_end, data_end = HEADER, HEADER + len(THREE[0])  # of the first record
    for place in range(len(whole)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            file.write_bytes(damaged)
            data, problems = readable(file)
            assert problems
            assert set(data) < set(THREE)
            if place < length_end:  # the length or its checksum: nothing can be found any more
                assert data == []
            elif place < data_end + FOOTER:  # the data or their checksum: the others are untouched
                assert data == THREE[1:]
                assert "data with a wrong checksum; the other records are intact" in problems[0]


def test_every_shorter_file_gives_the_whole_records_and_a_problem(file):
    whole, ends = file.read_bytes(), [stop for _, stop in spans(file)]
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        data, problems = readable(file)
        assert data == THREE[: sum(end <= size for end in ends)]
        assert bool(problems) is (size not in ends)  # cut between two records, nobody can tell


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, MAX_BYTES + 1, MAX_BYTES])
def test_an_impossible_length_is_refused_without_allocation(tmp_path, length):
    file = tmp_path / "x.tfrecord"
    file.write_bytes(framed(b"good") + header(length) + bytes(100))

    def refuse():
        assert spans(file) == [(0, 20), (20, 132)]
        with raw_refuses(f"more than {MAX_BYTES}" if length > MAX_BYTES else "a file of 132"):
            read(file, 20, 132)

    assert memory_peak(refuse) < MIB
    assert read(file, 0, 20) == b"good"


def test_a_file_of_endless_empty_records_ends_in_one_span(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecords, "MAX_RECORDS", 10)
    file = tmp_path / "x.tfrecord"
    file.write_bytes(framed(b"") * 50)
    found = spans(file)
    assert len(found) == 11
    assert found[-1] == (160, 800)
    with raw_refuses(r"to 800.*ends at byte 176: .* has over 10 records"):
        read(file, *found[-1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found empty"),
        (b"\x1f\x8b\x08" + bytes(50), "compressed with gzip"),
        (b"\n <!DOCTYPE html><html>" + bytes(50), "a web page"),
    ],
)
def test_a_file_that_is_something_else_is_named(tmp_path, content, words):
    file = tmp_path / "x.tfrecord"
    file.write_bytes(content)
    (span,) = spans(file)
    assert span == (0, len(content))
    with raw_refuses(words) as caught:
        read(file, *span)
    assert caught.value.reason == "no_tfrecord"


@pytest.mark.parametrize("begins", [b"\x1f\x8b", b"x\x9c"])
def test_a_length_that_begins_like_another_format_is_a_length(tmp_path, begins):
    data = bytes(int.from_bytes(begins, "little"))
    (tmp_path / "x.tfrecord").write_bytes(framed(data))
    assert readable(tmp_path / "x.tfrecord") == ([data], [])


def test_what_cannot_be_opened_is_one_span_and_told_when_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.tfrecord")
    for name in ("missing.tfrecord", "pipe.tfrecord"):
        assert spans(tmp_path / name) == [(0, 0)]
        with raw_refuses(r"no such file|no regular file"):
            read(tmp_path / name, 0, 0)


def test_a_file_that_changed_since_it_was_listed_is_noticed(file):
    (_, second, _) = spans(file)
    file.write_bytes(framed(b"x") + file.read_bytes())
    with pytest.raises(RawDataError):
        read(file, *second)
    with raw_refuses(r"to 25.*ends at byte 17: the file was changed"):
        read(file, 0, 25)


def test_memory_is_that_of_one_record_however_long_the_file_is(tmp_path):
    file = tmp_path / "300_MiB.tfrecord"  # sparse: the data are zeros that lie nowhere
    data = bytes(MIB)
    footer = framed(data)[-FOOTER:]
    with file.open("wb") as stream:
        for _ in range(300):
            stream.write(header(MIB))
            stream.seek(MIB, os.SEEK_CUR)
            stream.write(footer)
    assert memory_peak(lambda: spans(file)) < MIB // 4
    assert len(found := spans(file)) == 300
    assert memory_peak(lambda: [len(read(file, *span)) for span in found]) < 2 * MIB
    assert {len(read(file, *span)) for span in found} == {MIB}
