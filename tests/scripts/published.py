"""A few lines of the labels of UCF-101 and of Charades, in the form in which they are published."""

from __future__ import annotations

from pathlib import Path

CLASS_IND = "1 ApplyEyeMakeup\r\n2 Archery\r\n3 HandstandPushups\r\n"
TRAIN_LIST = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi 1\r\n"
    "Archery/v_Archery_g08_c01.avi 2\r\n"
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 3\r\n"
)
TEST_LIST = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n"
    "Archery/v_Archery_g01_c01.avi\r\n"
    "HandstandPushups/v_HandStandPushups_g01_c01.avi\r\n"
)
CSV_HEAD = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
)
CHARADES_TRAIN = (
    CSV_HEAD
    + '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks, ""well"", and sings.",food;stove,'
    + '"A person cooks.\nA person sings.",c092 11.90 21.20;c147 0.00 12.60,24.83\n'
    + "N11GT,0KZ7,Stairs,6,7,Yes,One walks.,groceries,One walks.,c098 8.60 14.20,18.33\n"
)
CHARADES_TEST = (
    CSV_HEAD
    + "YSKX3,GK3D,Bedroom,6,7,Yes,One sits.,bed,One sits.,"
    + "c092 0.00 9.10;c098 1.00 2.00;c092 12.00 14.00,31.00\n"
    + "ZZZZZ,UVWX,Garage,4,4,Yes,Nothing.,car,Nothing.,,10.00\n"
)
CHARADES_CLASSES = (
    "c092 Watching/looking at a picture\nc098 Holding a broom\nc147 Cooking something\n"
)


def write_ucf101(folder: Path, **changes: str | None) -> Path:
    """The folder ucfTrainTestlist; a file may have other text, or not be there."""
    files = {"classInd": CLASS_IND, "trainlist01": TRAIN_LIST, "testlist01": TEST_LIST}
    return _write(folder, {f"{name}.txt": text for name, text in (files | changes).items()})


def write_charades(folder: Path, **changes: str | None) -> Path:
    """Charades' files; one may have other text, or not be there."""
    files = {"train": CHARADES_TRAIN, "test": CHARADES_TEST, "classes": CHARADES_CLASSES} | changes
    return _write(
        folder,
        {
            f"Charades_v1_{name}.{'txt' if name == 'classes' else 'csv'}": text
            for name, text in files.items()
        },
    )


def _write(folder: Path, files: dict[str, str | None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        if text is not None:
            (folder / name).write_bytes(text.encode())
    return folder
