from __future__ import annotations

import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
import zstandard
from sklearn.datasets import load_iris

from core.data.profile import Kind, inspect
from core.data.tables import read_table, table_blocks
from core.errors import InvalidData


def _npy(array, **options):
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def _npz(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _parquet(table, **options):
    content = io.BytesIO()
    pq.write_table(pa.table(table), content, **options)
    return content.getvalue()


FEATURES = np.array([[1.5, -2.0], [3.0, 4e3], [0.25, 6.0]])
COLUMNS = {"a": FEATURES[:, 0], "b": FEATURES[:, 1], "label": ["x10", "x9", "x10"]}
TABLES = {
    "csv": "a,b,label\n1.5,-2,x10\n3,4e3,x9\n.25,6,x10\n",
    "csv with quotes and CRLF": '"a","b","label"\r\n"1.5",-2,"x10"\r\n3,4e3,x9\r\n.25,6,x10\r\n',
    "csv with a byte order mark": "\ufeffa,b,label\n1.5,-2,x10\n3,4e3,x9\n.25,6,x10",
    "semicolons": "a;b;label\n1.5;-2;x10\n3;4e3;x9\n.25;6;x10\n",
    "label in the middle": "a,label,b\n1.5,x10,-2\n3,x9,4e3\n.25,x10,6\n",
    "a label by any name": "a,b,species\n1.5,-2,x10\n3,4e3,x9\n.25,6,x10\n",
    "spaces around": "a, b, label\n1.5, -2, x10\n3, 4e3, x9\n.25, +6, x10\n",
    "blank lines": "\na,b,label\n1.5,-2,x10\n\n3,4e3,x9\n.25,6,x10\n\n",
    "tsv": "a\tb\tlabel\n1.5\t-2\tx10\n3\t4e3\tx9\n.25\t6\tx10\n",
    "jsonl": '{"a":1.5,"b":-2,"label":"x10"}\n{"label":"x9","b":4e3,"a":3}\n\n{"a":0.25,"b":6,"label":"x10"}\n',
    "parquet": _parquet(COLUMNS),
    "parquet in row groups": _parquet(COLUMNS, row_group_size=1),
    "gzip": gzip.compress(b"a,b,label\n1.5,-2,x10\n3,4e3,x9\n.25,6,x10\n"),
    "zstd": zstandard.compress(b"a,b,label\n1.5,-2,x10\n3,4e3,x9\n.25,6,x10\n"),
    "parquet in zstd": zstandard.compress(_parquet(COLUMNS)),
    "npz": _npz(x=FEATURES, y=np.array(["x10", "x9", "x10"])),
    "npz of bytes": _npz(data=FEATURES, target=np.array([b"x10", b"x9", b"x10"])),
    "npz in Fortran's order": _npz(X=np.asfortranarray(FEATURES), y=np.array([["x10"], ["x9"], ["x10"]])),
    "npz of Keras": _npz(x_train=FEATURES, y_train=np.array(["x10", "x9", "x10"]), x_test=FEATURES[:1], y_test=["x9"]),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_format_gives_the_same_table(name, write):
    path = write(TABLES[name])
    table = read_table(path)
    assert table.features.dtype == torch.float32
    assert table.features.tolist() == FEATURES.tolist()
    assert table.labels.tolist() == [1, 0, 1]
    assert table.labels.dtype == torch.int64
    assert table.class_names == ("x9", "x10")
    assert np.concatenate(list(table_blocks(path, rows=2))).tolist() == FEATURES.tolist()
    profile = inspect(path)
    assert (profile.kind, profile.examples, profile.shape) == (Kind.TABLE, 3, (2,))
    assert profile.classes == {"x9": 1, "x10": 2}
    assert list(profile.classes) == ["x9", "x10"]


UNLABELLED = {
    "npy": _npy(FEATURES),
    "npy in Fortran's order": _npy(np.asfortranarray(FEATURES)),
    "npy, big-endian": _npy(FEATURES.astype(">f4")),
    "npy in gzip": gzip.compress(_npy(np.asfortranarray(FEATURES))),
    "npz": _npz(whatever=FEATURES),
    "safetensors": safetensors.numpy.save({"x": FEATURES}),
    "safetensors in zstd": zstandard.compress(safetensors.numpy.save({"x": FEATURES.astype(np.float16)})),
    "idx2": b"\0\0\x0d\2" + np.array([3, 2], ">u4").tobytes() + FEATURES.astype(">f4").tobytes(),
    "csv without a header": "1.5,-2\n3,4e3\n.25,6\n",
    "numbers between spaces": "1.5 -2\n3 4e3\n.25 6\n",
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_tables_without_names_number_their_columns(name, write):
    table = read_table(write(UNLABELLED[name]))
    assert table.features.tolist() == FEATURES.tolist()
    assert table.columns == ("column_1", "column_2")
    assert table.labels is None
    assert inspect(write(UNLABELLED[name])).classes is None


def test_bfloat16(write, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.tensor(FEATURES, dtype=torch.bfloat16)}, tmp_path / "b")
    assert read_table(tmp_path / "b").features.tolist() == torch.tensor(FEATURES).to(torch.bfloat16).tolist()


def test_one_column_of_numbers(write):
    assert read_table(write("x\n1\n2\n")).columns == ("x",)
    assert read_table(write("1\n2\n")).features.tolist() == [[1.0], [2.0]]


def test_iris_as_its_authors_publish_it(write):
    iris = load_iris()
    names = np.array(["Iris-setosa", "Iris-versicolor", "Iris-virginica"])[iris.target]
    lines = [",".join([*map(str, row), name]) for row, name in zip(iris.data, names, strict=True)]
    table = read_table(write("\n".join(lines) + "\n\n"))
    assert np.allclose(table.features.numpy(), iris.data)
    assert table.labels.tolist() == iris.target.tolist()


def test_label_by_name(write):
    path = write("a,b,c\n1,2,7\n3,4,-1\n")
    table = read_table(path, label="b")
    assert table.columns == ("a", "c")
    assert table.class_names == ("2", "4")
    assert next(table_blocks(path, label="c")).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InvalidData, match="no column 'd'; there are 'a', 'b', 'c'"):
        read_table(path, label="d")


def test_labels_sort_naturally(write):
    table = read_table(write("a,y\n" + "".join(f"1,{y}\n" for y in (10, 9, -1, 2.0))))
    assert table.class_names == ("-1", "2", "9", "10")
    assert table.labels.tolist() == [3, 2, 0, 1]


@pytest.mark.parametrize("rows", [1, 7, 1000, 5000])
def test_blocks_have_the_rows_asked_for(rows, write):
    values = np.random.default_rng(0).normal(size=(3000, 3)).astype(np.float32)
    blocks = list(table_blocks(write(_npy(values)), rows=rows))
    assert all(len(block) == rows for block in blocks[:-1])
    assert len(blocks[-1]) <= rows
    assert np.array_equal(np.concatenate(blocks), values)
    assert blocks[0].dtype == np.float32


def test_larger_csv_equals_numpy(write):
    values = np.random.default_rng(0).normal(size=(20_000, 30)).astype(np.float32)
    content = io.StringIO()
    np.savetxt(content, values, delimiter=",", fmt="%.9g")
    assert np.array_equal(read_table(write(content.getvalue())).features.numpy(), values)


WRONG = {
    "ragged": ("a,b,c,d\n1,2,3,4\n1,2,3,4,5\n1,2,3,4\n1\n", ["line 3: 5 fields, the header has 4", "line 5: 1 fields"]),
    "ragged, no header": ("1,2\n3\n4,5\n6,7\n", ["line 2: 1 fields, the first line has 2"]),
    "empty cell": ("x,y2\n1,2\n,3\n4, \n", ["line 3, column 'x': empty", "line 4, column 'y2': empty"]),
    "nan": ("a,b\n1,2\nnan,3\n1,inf\n", ["line 3, column 'a': 'nan' is not a finite", "line 4, column 'b': 'inf'"]),
    "words": ("a,b\n1,2\nfoo,3\n1,2\n", ["line 3, column 'a': 'foo' is not a number"]),
    "underscores": ("a,b\n1,2\n1_0,3\n1,2\n", ["line 3, column 'a': '1_0' is not a number"]),
    "too large": ("a,b\n1,2\n1e39,3\n1,-1e999\n", ["line 3, column 'a': '1e39' is too large", "line 4, column 'b'"]),
    "empty label": ("a,label\n1,x\n2,\n", ["line 3, column 'label': empty"]),
    "fractions as labels": (
        "a,target\n1,0.5\n2,1.25\n",
        ["line 2, column 'target': '0.5' cannot be a label", "line 3"],
    ),
    "no rows": ("a,label\n", ["the table has no rows"]),
    "same name": ("a,b,a\n1,2,3\n", ["line 1: two columns are called 'a'"]),
    "an index": (",a,b\n0,1,2\n1,2,3\n", ["line 1: column 1 has no name (pandas"]),
    "words that are no label": ("a,b,label\nred,1,x\nblue,2,y\n", ["column 'a': holds 'red' and not numbers"]),
    "only a label": ("label\n1\n2\n", ["there is only the label 'label'"]),
    "open quote": ('a,b\n1,2\n"3,4\n5,6\n', ["line 3: a quote that opens here is never closed"]),
    "nul": ("a,b\n1,2\n3,\0\n5,6\n", ["line 3: holds a nul byte"]),
    "latin-1": ("a,label\n1,x\n3,é\n".encode("latin-1"), ["line 3: byte 3 is not UTF-8"]),
    "jsonl, missing": ('{"a":1,"b":2}\n{"a":1}\n', ["line 2: 'b' is missing"]),
    "jsonl, null": ('{"a":1,"b":2}\n{"a":1,"b":null}\n', ["line 2, column 'b': empty"]),
    "jsonl, NaN": ('{"a":1,"b":2}\n{"a":1,"b":NaN}\n', ["line 2: NaN is not JSON"]),
    "jsonl, list": ('{"a":[1,2]}\n{"a":[1,2]}\n', ["column 'a': holds [1, 2] and not numbers"]),
    "parquet, null": (_parquet({"a": [1.0, None, 3.0], "b": [1, 2, 3]}), ["row 2, column 'a': empty"]),
    "parquet, nan": (_parquet({"a": [1.0, float("nan")]}), ["row 2, column 'a': nan is not a finite number"]),
    "parquet, not UTF-8": (
        _parquet({"a": [1.0, 2.0], "label": ["xxxx", "yyyy"]}, compression="none", use_dictionary=False).replace(
            b"yyyy", b"y\xff\xffy"
        ),
        ["row 2, column 'label': not UTF-8"],
    ),
    "parquet, list": (_parquet({"a": [[1.0], [2.0]]}), ["column 'a': holds"]),
    "parquet, cut": (_parquet({"a": [1.0, 2.0]})[:-9], ["the Parquet file is damaged or cut short"]),
    "parquet, empty": (_parquet({"a": np.zeros(0)}), ["the table has no rows"]),
    "npy, nan": (_npy(np.array([[1, 2], [np.nan, 3]])), ["row 2, column 'column_1': nan is not finite"]),
    "npy, overflow": (_npy(np.array([[1, 1e300]])), ["row 1, column 'column_2': 1e+300 is not finite"]),
    "npy, words": (_npy(np.array([["a", "b"]])), ["the array: type <U1 is not numeric"]),
    "npy, complex": (_npy(np.ones((2, 2), complex)), ["the array: type complex128 is not numeric"]),
    "npy, objects": (_npy(np.array([[{}]]), allow_pickle=True), ["the array: holds Python objects, which are pickles"]),
    "npy, cut": (_npy(FEATURES)[:-1], ["the array: its header promises 48 bytes of values; there are 47"]),
    "npy, two": (_npy(FEATURES) * 2, ["the array: its header promises 48 bytes"]),
    "npy, flat": (_npy(np.ones(3)), ["the array: 1 dimensions: a table has two"]),
    "npy, empty": (_npy(np.ones((0, 3))), ["the array: empty: its shape is (0, 3)"]),
    "npy, huge header": (
        b"\x93NUMPY\2\0" + (2**31).to_bytes(4, "little") + b" " * 99,
        ["its NumPy header cannot be read"],
    ),
    "npy, deep header": (b"\x93NUMPY\1\0" + (9000).to_bytes(2, "little") + b"(" * 9000, ["its NumPy header cannot"]),
    "npy, negative": (_npy(FEATURES).replace(b"(3, 2)", b"(3,-2)"), ["its header promises"]),
    "npz, objects": (_npz(x=FEATURES, y=np.array([{}, 1, 2])), ["y.npy: holds Python objects"]),
    "npz, lengths": (_npz(x=FEATURES, y=np.arange(4)), ["y.npy: its shape is (4,); 3 rows need (3,)"]),
    "npz, one-hot": (_npz(x=FEATURES, y=np.eye(3)), ["y.npy: its shape is (3, 3); 3 rows need (3,)"]),
    "npz, names": (_npz(a=FEATURES, b=FEATURES), ["no array is called 'x', 'data'"]),
    "safetensors, types": (
        safetensors.numpy.save({"x": FEATURES}).replace(b'"F64"', b'"F9Z"'),
        ["x: type F9Z cannot be read"],
    ),
    "safetensors, cut": (safetensors.numpy.save({"x": FEATURES})[:-8], ["x: cut short"]),
    "safetensors, header": ((2**39).to_bytes(8, "little") + b'{"x":{}}', ["the safetensors header is cut short"]),
    "safetensors, deep": (
        (9000).to_bytes(8, "little") + b"{" + b'"a":{' * 1799 + b" " * 4,
        ["the safetensors header can"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place(name, write, told):
    content, expected = WRONG[name]
    problems = told(write(content))
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert start in problem


def test_the_reader_tells_the_same_as_the_inspector(write):
    with pytest.raises(InvalidData, match="line 3, column 'a': empty"):
        read_table(write("a,b\n1,2\n,3\n"))
    with pytest.raises(InvalidData, match="holds text"):
        read_table(write("a text\n"))


def test_problems_end_with_the_hundredth(write, told):
    problems = told(write("a,b\n" + "1,2\n" * 300 + "1,\n" * 200))
    assert len(problems) == 100
    assert problems[0] == "line 302, column 'b': empty"


def test_a_late_mistake_is_told_by_its_line(write, told):
    assert told(write("a,b\n" + "1,2\n" * 100_000 + "3,x\n")) == ["line 100002, column 'b': 'x' is not a number"]


def test_a_late_row_that_only_the_careful_reader_takes(write):
    table = read_table(write("a,b\n" + "1,2\n" * 1_000_000 + '"3",+4\n'))
    assert table.features.shape == (1_000_001, 2)
    assert table.features[-1].tolist() == [3, 4]
    assert table.features.sum().item() == 3_000_007


def test_a_number_of_classes_that_no_label_has(write, told):
    rows = "".join(f"1,{index}\n" for index in range(100_001))
    assert "over 100,000 different labels" in told(write("a,label\n" + rows))[0]
