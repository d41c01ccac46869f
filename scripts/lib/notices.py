#!/usr/bin/env python3
"""Prints the licences of the crates that are linked into seawall, as their own packages hold them."""

import json
import pathlib
import subprocess
from collections import defaultdict

NAMES = ("license", "licence", "copying", "notice", "copyright", "unlicense")


def linked():
    """Names and versions of the crates that a release of seawall consists of."""
    tree = ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(tree, check=True, capture_output=True, text=True).stdout.splitlines()
    return {tuple(line.split()[:2]) for line in lines if line.strip()}


def main():
    metadata = ["cargo", "metadata", "--locked", "--format-version", "1"]
    packages = json.loads(subprocess.run(metadata, check=True, capture_output=True, text=True).stdout)["packages"]
    wanted = linked()
    crates, texts = [], defaultdict(list)
    for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
        name = f"{package['name']} {package['version']}"
        if package["name"] == "seawall" or (package["name"], f"v{package['version']}") not in wanted:
            continue
        crates.append(f"{name}: {package['license'] or 'see its file'}")
        folder = pathlib.Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(NAMES):
                texts[file.read_text(errors="replace").strip()].append(name)
    print("seawall is linked with these crates:\n")
    print("\n".join(crates))
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        print(f"\n{'-' * 72}\n{', '.join(names)}:\n\n{text}")


if __name__ == "__main__":
    main()
