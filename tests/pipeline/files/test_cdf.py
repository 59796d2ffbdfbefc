"""CDF files: the one variable that is wanted comes out, all else is an error that names file and
key.
"""

import cdflib.cdfwrite
import numpy as np
import pytest

from pipeline.datasets.labels.h36m import load_cdf
from tests.raising import raw_refuses

VALUES = np.random.default_rng(0).normal(size=(1, 40, 96))


def write(file, values, name="Pose", data_type=44, **spec):
    cdf = cdflib.cdfwrite.CDF(file, cdf_spec={"Compressed": 0, **spec}, delete=True)
    variable = {
        "Variable": name,
        "Data_Type": data_type,
        "Num_Elements": 1,
        "Rec_Vary": True,
        "Var_Type": "zVariable",
    }
    cdf.write_var({**variable, "Dim_Sizes": list(values.shape[1:]), "Compress": 0}, var_data=values)
    cdf.close()
    return file


@pytest.mark.parametrize(
    ("data_type", "dtype"), [(44, np.float32), (45, np.float64), (21, np.float32)]
)
@pytest.mark.parametrize("spec", [{"Compressed": 1}, {"Encoding": 1}, {"Majority": 1}])
def test_floating_point_numbers_come_as_stored_but_for_the_byte_order(
    tmp_path, spec, data_type, dtype
):
    file = write(tmp_path / "x.cdf", VALUES.astype(dtype), data_type=data_type, **spec)
    found = load_cdf(file, "Pose")
    assert found.dtype == dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, VALUES.astype(dtype))


def test_columns_first_means_that_the_first_dimension_is_the_fastest(tmp_path):
    values = VALUES.astype(np.float32)
    file = write(
        tmp_path / "x.cdf", np.ascontiguousarray(values[0].T).reshape(values.shape), Majority=2
    )
    np.testing.assert_array_equal(load_cdf(file, "Pose"), values)


def test_another_variable_and_whole_numbers_are_refused(tmp_path):
    file = write(tmp_path / "x.cdf", np.zeros((1, 2, 3), np.float32))
    with raw_refuses(r"x\.cdf: 'Poses'.*only \['Pose'\]"):
        load_cdf(file, "Poses")
    write(file, np.zeros((1, 2, 3), np.int32), data_type=4)
    with raw_refuses("'Pose': expected floating-point numbers, found int32"):
        load_cdf(file, "Pose")
