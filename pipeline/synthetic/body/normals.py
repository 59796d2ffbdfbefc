"""Which way a body's surface faces at its vertices.  motion -> [pixels] -> raw; predicted bodies -> [pictures]"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.floating[Any]]


class SmoothNormals:
    """Normals of bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self.faces = np.asarray(faces, np.int64)
        self.n_vertices = int(self.faces.max()) + 1
        corners = np.ones(self.faces.size, np.float32)
        rows, columns = self.faces.ravel(), np.repeat(np.arange(len(self.faces)), 3)
        self._faces_at_vertex = sparse.csr_array((corners, (rows, columns)), shape=(self.n_vertices, len(self.faces)))

    def __call__(self, verts: Floats) -> NDArray[np.float32]:
        """(V, 3) -> (V, 3) unit vectors outwards, averaged over the faces around a vertex, weighted by their area."""
        corners = verts.astype(np.float32)[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        smooth = self._faces_at_vertex @ normals
        smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + np.float32(1e-20)
        return np.asarray(smooth, np.float32)
