"""Can this data be trusted? Looks at records before a night of training is spent on them.

    python -m data_prep.doctor --records 'data/kitti/*.tfrecord' --output out/doctor

Counts what is there, and looks for what is wrong: damaged records, labels with foreign ids or away
from the pictures, classes that are never trained, frames in two splits, and flow that does not
bring image2 back to image1, with the reason (axes, signs, scale, pairs shifted). Every record is
decoded once; --limit frames of each data set are looked at closely. Exit code 1 when there is an
error. --output is a page of pictures with every finding beside the frames it names; mismatch is
1 - correlation of 7x7 patches: 0 is alike, 1 is nothing alike.
"""

import json
from typing import Any

from absl import flags

from data_prep.doctor.examine import Diagnosis, examine
from data_prep.doctor.findings import LEVELS, count
from data_prep.doctor.survey import text
from flowseg import files
from flowseg.cli import entry
from flowseg.data.labels import load_label_set


def define_flags() -> None:
    """The flags of this command."""
    flags.DEFINE_list("records", None, "Shards to look at: GLOB[,GLOB].")
    flags.DEFINE_string("label_set", "cityscapes", "Classes: a built-in name, or a JSON file.")
    flags.DEFINE_string("output", None, "Folder for a page of pictures; default: none.")
    flags.DEFINE_string("json", None, "File for the numbers and findings; default: none.")
    flags.DEFINE_integer("limit", 200, "Frames of each data set to look at closely.", lower_bound=1)
    flags.DEFINE_integer("workers", None, "Processes; default: one a CPU core.", lower_bound=1)


def main() -> None:
    """The command.

    Raises:
        ValueError: no records; or errors were found in them.
        OSError: a file cannot be read or written.
    """
    values = flags.FLAGS
    if not values.records:
        raise ValueError("--records is not given: the shards to look at (see --help)")
    from flowseg.data import records

    label_set = load_label_set(values.label_set)
    paths = records.match_files(*values.records)
    diagnosis = examine(paths, label_set, limit=values.limit, processes=values.workers)
    found = {level: [f for f in diagnosis.findings if f.level == level] for level in LEVELS}
    print(text(diagnosis.facts, diagnosis.numbers, label_set))
    if diagnosis.looked:
        print("\nlooked closely at")
        print("\n".join(f"  {line}" for line in diagnosis.looked))
    print()
    for finding in diagnosis.findings:
        print(f"{finding.level}: {finding.line()}")
    print(", ".join(count(len(part), level) for level, part in found.items()))
    if values.json:
        files.write(values.json, json.dumps(report(diagnosis), indent=1) + "\n")
        print(f"wrote {values.json}")
    if values.output:
        from data_prep.doctor import pictures

        print(f"wrote {pictures.write_page(values.output, diagnosis, label_set)}")
    if found["error"]:
        names = ", ".join(finding.name for finding in found["error"])
        raise ValueError(f"{count(len(found['error']), 'fault')} in these records: {names}")


def report(diagnosis: Diagnosis) -> dict[str, Any]:
    """What --json writes: the numbers, how many findings of each level, and the findings."""
    levels = {f"{k}s": sum(f.level == k for f in diagnosis.findings) for k in LEVELS}
    findings = [
        {
            "level": finding.level,
            "name": finding.name,
            "text": finding.text,
            "frames": [[frame.shard, frame.index, frame.frame_id] for frame in finding.frames],
        }
        for finding in diagnosis.findings
    ]
    return {**diagnosis.numbers, **levels, "findings": findings}


if __name__ == "__main__":
    define_flags()
    entry.run(main)
