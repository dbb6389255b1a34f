"""Writing to http(s) urls: one PUT of a known length, which signed links and plain servers alike accept.

What does not fit into memory waits in a temporary file, so that the PUT can be sent again. `If-None-Match: *` asks the
server to keep an object that is there; not every server listens.
"""

from __future__ import annotations

from typing import Any

from .upload import Steps


class HttpSteps(Steps):
    """One PUT."""

    def put(self, body: Any) -> None:
        """Send the object."""
        condition = {} if self.options.overwrite else {"If-None-Match": "*"}
        answer = self.ask("PUT", headers=condition, body=body, accept=(*range(200, 300), 412), counts=True)
        if answer.status == 412:
            raise self.exists()
