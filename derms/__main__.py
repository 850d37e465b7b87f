"""`python -m derms` is the `derms` command."""

import sys

from derms.service.cli import main

sys.exit(main())
