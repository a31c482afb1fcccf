# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
# Only what imports in milliseconds: `import mmdfkd` passes through here.
from .dependencies import check_dependencies
from .errors import UsageError, check_choice, check_least
from .reporting import report_errors

__all__ = ['UsageError', 'check_choice', 'check_dependencies', 'check_least', 'report_errors']
