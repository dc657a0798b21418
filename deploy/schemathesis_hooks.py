"""What comparing the API with its OpenAPI document needs beyond its configuration."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """A sequence of calls goes on with what the one before has made, and a dry run makes nothing."""
    if case.meta is not None and case.meta.phase.name.value == "stateful":
        case.query.pop("dry_run", None)
