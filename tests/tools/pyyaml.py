"""PyYAML, which is installed into the cache when the Python here has none."""

import os
import subprocess
import sys
from pathlib import Path

VERSION = "6.0.3"


def pyyaml():
    """The module `yaml`; None where it cannot be had, which is said."""
    try:
        import yaml

        return yaml
    except ImportError:
        pass
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("FLYWEIGHT_CACHE") or home / "flyweight")
    folder = cache / "tools" / f"pyyaml-{VERSION}"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]
        if subprocess.run([*pip, str(folder), f"PyYAML=={VERSION}"], check=False).returncode:
            print("PyYAML cannot be installed: pip says why; or install python3-yaml", file=sys.stderr)
            return None
    sys.path.insert(0, str(folder))
    import yaml

    return yaml
