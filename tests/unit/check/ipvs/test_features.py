from __future__ import annotations

import pytest

from lvslab.check.ipvs.features import lacking
from lvslab.errors import UsageError
from lvslab.kernel import catalogue

OLD = {"kernel": "2.4.37.11", "ipvsadm": "1.31"}
NEW = {"kernel": "6.1.0-56-cloud-amd64", "ipvsadm": "1.31-1+b1"}


def test_a_kernel_that_is_too_old() -> None:
    reason = lacking(OLD, ["ipv6"])
    assert reason is not None
    assert "2.4.37.11" in reason
    assert "2.6.28" in reason
    assert lacking(NEW, ["ipv6"]) is None


def test_the_first_thing_that_is_lacking_is_told() -> None:
    assert lacking(OLD, []) is None
    assert lacking(OLD, ["sctp", "ipv6"]) == lacking(OLD, ["sctp"])


def test_ipvsadm_has_versions_of_its_own() -> None:
    names = [name for name, row in catalogue.features().items() if row.kind == "ipvsadm"]
    assert names
    for name in names:
        since = catalogue.features()[name].since
        assert lacking({"kernel": "2.4.1", "ipvsadm": since}, [name]) is None
        assert lacking({"kernel": "9.0", "ipvsadm": "1.0"}, [name]) is not None


def test_a_feature_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="ipv7"):
        lacking(NEW, ["ipv7"])
