# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Print a config with all it inherits: ``python tools/misc/print_config.py CONFIG``."""

from __future__ import annotations

import argparse

from mmdfkd.utils.command_line import add_cfg_options
from mmdfkd.utils.config_check import check_config
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.reporting import report_errors


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description='Print a config with all it inherits')
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)
    args = parser.parse_args()
    with report_errors():
        cfg = load_config(args.config, args.cfg_options)
        check_config(cfg)
        print(cfg.pretty_text)


if __name__ == '__main__':
    main()
