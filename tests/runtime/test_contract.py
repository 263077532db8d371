import dataclasses
import json
from collections.abc import Callable

import pytest

from cisi_runtime.architecture import PRESETS, Architecture
from cisi_runtime.contract import REVISION, Contract, Provenance
from cisi_runtime.errors import ContractError
from tests.support.networks import provenance


def test_json_round_trip_is_exact() -> None:
    contract = Contract(PRESETS["small"], provenance(), precision="int8", target="cpu", face="uint8", padding="edge")
    assert Contract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"revision": REVISION + 1}, "newer than .* install a newer cisi-net"),
        ({"surprise": 1}, r"unknown keys \['surprise'\]"),
        ({"colour_order": "BGR"}, "colour_order is 'BGR', expected 'RGB'"),
        ({"mask_threshold": 127}, "mask_threshold is 127, expected 128"),
        ({"value_range": [0.0, 1.0]}, "value_range"),
        ({"architecture": {"dim": 8}}, "architecture: unknown keys .*, missing keys"),
        ({"architecture": 7}, "architecture: expected an object, got int"),
        ({"provenance": None}, "provenance: expected an object, got NoneType"),
        ({"revision": "1"}, "revision number"),
        ({"revision": 0}, "revision number"),
        ({"revision": True}, "revision number"),
        ({"weights_sha256": None}, "of the wrong kind: Expected `str`, got `null` - at `[$].weights_sha256`"),
        ({"size_multiple": 16.0}, "of the wrong kind"),
        ({"composite_in_graph": 1}, "of the wrong kind"),
        ({"value_range": None}, "of the wrong kind"),
        ({"inputs": 3}, "of the wrong kind"),
    ],
)
def test_what_is_not_known_is_refused(
    rewritten_contract: Callable[..., str], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        Contract.from_json(rewritten_contract(**changes))


@pytest.mark.parametrize("changes", [{"steps": "x"}, {"preset": None}, {"images": 3.5}, {"steps": True}])
def test_provenance_of_the_wrong_kind_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="provenance: a value is of the wrong kind: Expected"):
        Provenance.from_dict(dataclasses.asdict(provenance()) | changes)


def test_missing_key_is_refused(rewritten_contract: Callable[..., str]) -> None:
    values = json.loads(rewritten_contract())
    del values["padding"]
    with pytest.raises(ContractError, match=r"missing keys \['padding'\]"):
        Contract.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"revision": null}'])
def test_what_is_not_a_contract_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        Contract.from_json(text)


def test_architecture_collects_all_faults() -> None:
    with pytest.raises(ContractError, match=r"dim must be .* got 0; style_dim must be .* got 1.5; dilations"):
        Architecture(dim=0, style_dim=1.5, dilations=())  # type: ignore[arg-type]


def test_presets_share_everything_but_width() -> None:
    for architecture in PRESETS.values():
        assert dataclasses.replace(architecture, dim=64, mlp_dim=256) == PRESETS["paper"]
