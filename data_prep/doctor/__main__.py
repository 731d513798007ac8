"""Check records for faults before a long training uses them.

    python -m data_prep.doctor --records 'data/kitti/*.tfrecord' --output out/doctor

Prints statistics and reports faults: damaged records, labels with unknown ids or not aligned with
the images, classes that are never trained, frames in two splits, and flow that does not warp image2
back to image1, with the reason (axes, signs, scale, shifted pairs). Every record is decoded once;
--limit frames per data set are examined in detail. The exit code is 1 if there is an error.
--output writes a page that shows each finding with the frames it names. Mismatch is 1 - correlation
of 7x7 patches: 0 for identical patches, 1 for uncorrelated ones.
"""

import json
from typing import Any

from absl import flags

from data_prep.doctor.examine import Diagnosis, examine
from data_prep.doctor.findings import LEVELS, count
from data_prep.doctor.survey import text
from flowseg import files
from flowseg.cli import entry
from flowseg.cli import flags as shared_flags
from flowseg.data.labels import load_label_set


def define_flags() -> None:
    """Define the flags of this command."""
    shared_flags.define_record_sets("records", None, "Shards to examine: GLOB[,GLOB].")
    flags.DEFINE_string("label_set", "cityscapes", "Classes: a built-in label set or a JSON file.")
    flags.DEFINE_string("output", None, "Folder for an HTML page with images; default: none.")
    flags.DEFINE_string("json", None, "JSON file for the numbers and findings; default: none.")
    flags.DEFINE_integer("limit", 200, "Frames per data set to examine in detail.", lower_bound=1)
    flags.DEFINE_integer(
        "workers", None, "Number of processes; default: one per CPU core.", lower_bound=1
    )


def main() -> None:
    """Run the command.

    Raises:
        ValueError: no records, or errors were found in them.
        OSError: a file cannot be read or written.
    """
    values = flags.FLAGS
    if not values.records:
        raise ValueError("--records is not given: the shards to examine (see --help)")
    from flowseg.data import records

    label_set = load_label_set(values.label_set)
    paths = records.match_files(*values.records)
    diagnosis = examine(paths, label_set, limit=values.limit, processes=values.workers)
    by_level = {level: [f for f in diagnosis.findings if f.level == level] for level in LEVELS}
    print(text(diagnosis.facts, diagnosis.numbers, label_set))
    if diagnosis.inspected:
        print("\nexamined in detail")
        print("\n".join(f"  {line}" for line in diagnosis.inspected))
    print()
    for finding in diagnosis.findings:
        print(f"{finding.level}: {finding.line()}")
    print(", ".join(count(len(part), level) for level, part in by_level.items()))
    if values.json:
        files.write(values.json, json.dumps(report(diagnosis), indent=1) + "\n")
        print(f"wrote {values.json}")
    if values.output:
        from data_prep.doctor import pictures

        print(f"wrote {pictures.write_page(values.output, diagnosis, label_set)}")
    if by_level["error"]:
        names = ", ".join(finding.name for finding in by_level["error"])
        raise ValueError(f"{count(len(by_level['error']), 'fault')} in these records: {names}")


def report(diagnosis: Diagnosis) -> dict[str, Any]:
    """Build the content of --json: the numbers, the findings and their counts by level."""
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
