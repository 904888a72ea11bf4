"""Fitted estimators whose compiled code would follow forged arrays out of their memory: refused before they predict."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sparse
from sklearn import neighbors, svm, tree
from sklearn.datasets import load_iris
from sklearn.metrics.pairwise import rbf_kernel

from holdfast.artifacts.checking import check_file
from holdfast.artifacts.loading import load_object
from holdfast.artifacts.objects import check_objects
from holdfast.core.errors import InvalidModel

X, Y = load_iris(return_X_y=True)
MACHINES = (svm.SVC, svm.NuSVC, svm.SVR, svm.NuSVR, svm.OneClassSVM)
FAR = 10**8


class Rebuilt:
    """Pickles as a compiled object with a state of our own."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def machine(kind: type, **forged: Callable[[Any], Any]) -> Any:
    model = kind().fit(X, Y)
    for name, change in forged.items():
        setattr(model, name, change(getattr(model, name)))
    return model


def sparse_machine(kind: type, name: str, change: Callable[[Any], Any]) -> Any:
    model = kind().fit(sparse.csr_array(X), Y)
    setattr(model.support_vectors_, name, change(getattr(model.support_vectors_, name)))
    return model


def decision_tree(**forged: Any) -> Any:
    model = tree.DecisionTreeClassifier().fit(X, Y)
    function, arguments, state = model.tree_.__reduce__()
    model.tree_ = Rebuilt(function, arguments, {**state, **{name: change(state[name]) for name, change in forged.items()}})
    return model


def neighbour_tree(algorithm: str, place: int, change: Callable[[Any], Any]) -> Any:
    model = neighbors.KNeighborsClassifier(algorithm=algorithm).fit(X, Y)
    function, arguments, state = model._tree.__reduce__()
    model._tree = Rebuilt(function, arguments, tuple(change(v) if i == place else v for i, v in enumerate(state)))
    return model


def without_leaves(nodes: Any) -> Any:
    nodes = nodes.copy()
    nodes["is_leaf"] = 0
    return nodes


def far(values: Any) -> Any:
    return np.full_like(values, FAR)


def sparse_neighbours() -> Any:
    model = neighbors.KNeighborsClassifier(algorithm="brute").fit(sparse.csr_array(X), Y)
    model._fit_X.indices[:] = FAR
    return model


def precomputed() -> Any:
    model = svm.SVC(kernel="precomputed").fit(X @ X.T, Y)
    model.support_ = far(model.support_)
    return model


FORGED: dict[str, Callable[[], Any]] = {
    **{f"{kind.__name__} counts": lambda kind=kind: machine(kind, _n_support=far) for kind in MACHINES},
    **{f"{kind.__name__} few vectors": lambda kind=kind: machine(kind, support_vectors_=lambda v: v[:1]) for kind in MACHINES},
    **{f"{kind.__name__} coefficients": lambda kind=kind: machine(kind, _dual_coef_=lambda v: v[:, :1]) for kind in MACHINES},
    **{f"{kind.__name__} sparse": lambda kind=kind: sparse_machine(kind, "indices", far) for kind in MACHINES},
    "intercepts": lambda: machine(svm.SVC, _intercept_=lambda v: v[:1]),
    "probabilities": lambda: machine(svm.SVC, _probA=lambda _: np.ones(1), _probB=lambda _: np.ones(1)),
    "another kind": lambda: machine(svm.SVR, _impl=lambda _: "c_svc"),
    "precomputed": precomputed,
    "tree without nodes": lambda: decision_tree(node_count=lambda _: 0, nodes=lambda v: v[:0], values=lambda v: v[:0]),
    "tree without room": lambda: decision_tree(nodes=lambda v: v[:0], values=lambda v: v[:0]),
    "k-d leaves": lambda: neighbour_tree("kd_tree", 2, without_leaves),
    "k-d metric": lambda: neighbour_tree("kd_tree", 11, lambda _: None),
    "k-d bounds": lambda: neighbour_tree("kd_tree", 3, lambda v: v[:, :1]),
    "ball leaves": lambda: neighbour_tree("ball_tree", 2, without_leaves),
    "sparse neighbours": sparse_neighbours,
}


@pytest.mark.claim("loop-10")
@pytest.mark.parametrize("name", FORGED)
def test_forged_estimators_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(FORGED[name]()))
    check = check_file(path)
    assert check.unlisted == ()
    with pytest.raises(InvalidModel):
        load_object(check)


@pytest.mark.parametrize("kind", MACHINES)
def test_support_vector_machines_pass(kind: type) -> None:
    two = Y < 2
    for model in (
        kind().fit(X, Y),
        kind().fit(X[two], Y[two]),
        kind().fit(sparse.csr_array(X), Y),
        kind(kernel="linear").fit(X[two], Y[two]),
        kind(kernel="precomputed").fit(X @ X.T, Y),
        kind(kernel=rbf_kernel).fit(X, Y),
    ):
        check_objects(pickle.loads(pickle.dumps(model)), "m")


@pytest.mark.parametrize("rows", [1, 2, 5, 150])
@pytest.mark.parametrize("kind", [neighbors.KDTree, neighbors.BallTree])
def test_neighbour_trees_pass(kind: type, rows: int) -> None:
    check_objects([kind(X[:rows]), kind(X[:rows], leaf_size=1)], "m")


@pytest.mark.parametrize("form", ["csr", "csc", "bsr", "coo", "dia", "lil"])
def test_sparse_matrices_pass_and_forged_ones_do_not(form: str) -> None:
    for kind in (sparse.csr_array, sparse.csr_matrix):
        matrix = kind(np.eye(4)).asformat(form)
        check_objects([matrix, kind((0, 3)).asformat("csr")], "m")
        if form == "coo":
            matrix.coords[0][0] = FAR
        elif form == "dia":
            matrix.offsets = np.arange(9)
        elif form == "lil":
            matrix.rows[0][0] = FAR
        else:
            matrix.indices[0] = FAR
        with pytest.raises(InvalidModel, match="sparse"):
            check_objects(matrix, "m")
