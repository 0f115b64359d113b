"""Each layout is drawn as its publisher packs it, with pictures of noise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import openpyxl
import pytest
from PIL import Image

from export.dataset import FOUR_CLASSES
from export.errors import DataError
from export.layouts.augmented import original_name
from export.layouts.ieee8023 import label_of
from export.layouts.registry import LAYOUTS, find_layout, read_folder
from export.phantom import phantom, random_opacities

EVERYTHING = ("normal", "pneumonia", "covid19", "lung_opacity", "other")


def draw(root, *files):
    """Write pictures that are all different."""
    for number, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = (number, *file.encode())
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)).convert("L").save(path)


def codes(samples):
    return {sample.file.name: sample.patient for sample in samples}


def labels(samples):
    return {sample.file.name: sample.label for sample in samples}


@pytest.fixture
def kermany(tmp_path):
    draw(
        tmp_path / "chest_xray",
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_bacteria_2.jpeg",
        "test/PNEUMONIA/person1_virus_6.jpeg",
        "test/NORMAL/NORMAL-1003233-0001.jpeg",
        "val/PNEUMONIA/BACTERIA-1008087-0001.jpeg",
        "val/PNEUMONIA/notes.jpeg",
        "chest_xray/train/NORMAL/IM-0115-0001.jpeg",
    )
    return tmp_path


def test_kermany(kermany):
    assert find_layout(kermany).name == "kermany"
    samples = read_folder(kermany)
    assert len(samples) == 8
    assert codes(samples)["person1_bacteria_2.jpeg"] == codes(samples)["person1_virus_6.jpeg"] == "kermany:pneumonia:person1"
    assert codes(samples)["IM-0115-0001.jpeg"] != codes(samples)["NORMAL2-IM-0115-0001.jpeg"]
    assert codes(samples)["BACTERIA-1008087-0001.jpeg"] == "kermany:pneumonia:bacteria-1008087"
    assert Counter(sample.finding for sample in samples) == {"bacteria": 3, "virus": 1, "normal": 3, "pneumonia": 1}
    assert {(sample.group, sample.view, sample.source) for sample in samples} == {("child", "AP", "kermany")}
    assert [sample.file.name for sample in samples if not sample.patient_known] == ["notes.jpeg"]


def test_radiography(tmp_path):
    root = tmp_path / "COVID-19_Radiography_Dataset"
    pictures = [f"{name}/images/{name}-{n}.png" for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia") for n in (1, 2)]
    draw(root, *pictures, "COVID/masks/COVID-1.png")
    book = openpyxl.Workbook()
    book.active.append(["FILE NAME", "FORMAT", "SIZE", "URL"])
    book.active.append(["NORMAL-1", "PNG", "256*256", "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"])
    book.active.append(["NORMAL-2", "PNG", "256*256", "https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia"])
    book.save(root / "Normal.metadata.xlsx")
    assert find_layout(tmp_path).name == find_layout(root).name == "radiography"
    samples = {sample.file.name: sample for sample in read_folder(tmp_path, FOUR_CLASSES)}
    assert Counter(sample.label for sample in samples.values()) == dict.fromkeys(FOUR_CLASSES, 2)
    assert (samples["Normal-1.png"].source, samples["Normal-1.png"].group) == ("rsna", "")
    assert (samples["Normal-2.png"].source, samples["Normal-2.png"].group) == ("kermany", "child")
    assert samples["Viral Pneumonia-1.png"].group == "child"
    assert samples["COVID-1.png"].lung_mask == root / "COVID/masks/COVID-1.png"
    assert not any(sample.patient_known for sample in samples.values())
    assert len({sample.patient for sample in samples.values()}) == 8
    assert len(read_folder(tmp_path)) == 6
    (root / "Normal.metadata.xlsx").write_text("no table")
    with pytest.raises(DataError, match=r"Normal.metadata.xlsx is no Excel table"):
        read_folder(tmp_path)


COVIDX = {
    "train_COVIDx8A.txt": "5 ARDSSevere.png pneumonia cohen\n5 ARDS two.png pneumonia cohen\n"
    "SITE2-000265 MIDRC-1.png COVID-19 ricord\n",
    "test_COVIDx8A.txt": "47c78742 47c78742.png normal rsna\n\n",
}


@pytest.fixture
def covidx(tmp_path):
    for name, text in COVIDX.items():
        (tmp_path / name).write_text(text)
    draw(tmp_path, "train/ARDSSevere.png", "data/train/ARDS two.png", "train/MIDRC-1.png", "competition_test/47c78742.png")
    return tmp_path


def test_covidx(covidx):
    assert find_layout(covidx).name == "covidx"
    samples = read_folder(covidx)
    assert labels(samples) == {
        "ARDSSevere.png": "pneumonia",
        "ARDS two.png": "pneumonia",
        "MIDRC-1.png": "covid19",
        "47c78742.png": "normal",
    }
    assert codes(samples)["ARDSSevere.png"] == codes(samples)["ARDS two.png"] == "ieee8023:5"
    assert codes(samples)["MIDRC-1.png"] == "covidx:ricord:SITE2-000265"
    assert [sample.patient_known for sample in samples] == [True, True, True, False]
    assert [sample.source for sample in samples] == ["cohen", "cohen", "ricord", "rsna"]


def test_covidx_of_two_classes_and_without_sources(tmp_path):
    (tmp_path / "train.txt").write_text("8 a.jpeg positive\nabc abc.png negative\n")
    draw(tmp_path, "train/a.jpeg", "train/abc.png")
    samples = read_folder(tmp_path, ("non_covid19", "covid19"))
    assert labels(samples) == {"a.jpeg": "covid19", "abc.png": "non_covid19"}
    assert codes(samples)["a.jpeg"] == "ieee8023:8"
    with pytest.raises(DataError, match="has no picture of normal, pneumonia; it has covid19 1, non_covid19 1"):
        read_folder(tmp_path, ("normal", "pneumonia"))


def test_covidx_that_is_damaged(covidx):
    (covidx / "train/MIDRC-1.png").unlink()
    with pytest.raises(DataError, match=r"names train/MIDRC-1.png \(1 files\) that are not there"):
        read_folder(covidx)
    (covidx / "train_COVIDx8B.txt").write_text(COVIDX["train_COVIDx8A.txt"])
    with pytest.raises(DataError, match=r"several lists for train: train_COVIDx8A.txt, train_COVIDx8B.txt"):
        read_folder(covidx)
    (covidx / "train_COVIDx8B.txt").unlink()
    (covidx / "test_COVIDx8A.txt").write_text("a b\n")
    with pytest.raises(DataError, match=r"test_COVIDx8A.txt, line 1 is not `patient file label"):
        read_folder(covidx)


def test_ieee8023(tmp_path):
    rows = [
        "patientid,offset,sex,age,finding,view,modality,folder,filename",
        "2,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.jpg",
        "2,3,M,65,Pneumonia/Viral/COVID-19,L,X-ray,images,side.jpg",
        "2,3,M,65,Pneumonia/Viral/COVID-19,Axial,CT,volumes,ct.nii.gz",
        '3,,F,,"COVID-19, ARDS",AP  Supine,X-ray,images,b.jpg',
        "4,,F,30,Pneumonia/Bacterial/Streptococcus,AP,X-ray,images,c.jpg",
        "5,,,,No Finding,PA,X-ray,images,d.jpg",
        "6,,,,Tuberculosis,PA,X-ray,images,e.jpg",
        "7,,,,todo,PA,X-ray,images,f.jpg",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    draw(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    draw(tmp_path / "annotations/lungVAE-masks", "a_mask.png")
    assert find_layout(tmp_path).name == "ieee8023"
    samples = {sample.file.name: sample for sample in read_folder(tmp_path, EVERYTHING)}
    assert {name: sample.label for name, sample in samples.items()} == {
        "a.jpg": "covid19",
        "b.jpg": "covid19",
        "c.jpg": "pneumonia",
        "d.jpg": "normal",
        "e.jpg": "other",
    }
    first = samples["a.jpg"]
    assert (first.age, first.sex, first.view, first.group, first.patient) == (65.0, "M", "PA", "adult", "ieee8023:2")
    assert first.lung_mask == tmp_path / "annotations/lungVAE-masks/a_mask.png"
    assert (samples["b.jpg"].view, samples["b.jpg"].lung_mask) == ("AP SUPINE", None)


@pytest.mark.parametrize(
    ("finding", "label"),
    [("SARS", "pneumonia"), ("COVID-19", "covid19"), ("Pneumonia", "pneumonia"), ("ARDS", "other"), ("Unknown", ""), ("", "")],
)
def test_findings_of_ieee8023(finding, label):
    assert label_of(finding) == label


def test_ten_thousand(tmp_path):
    draw(tmp_path / "dataset", "covid/1.jpg", "covid/2.png", "normal/1.jpeg")
    assert find_layout(tmp_path).name == "ten-thousand"
    samples = read_folder(tmp_path, ("normal", "covid19"))
    assert Counter(sample.label for sample in samples) == {"covid19": 2, "normal": 1}
    assert {sample.patient for sample in samples} == {
        f"ten-thousand:dataset/{name}" for name in ("covid/1.jpg", "covid/2.png", "normal/1.jpeg")
    }


def test_augmented_siblings_are_tied_by_their_names(tmp_path):
    root = tmp_path / "COVID-19 Dataset"
    uuid = "0b1c2d3e-0000-4000-8000-0123456789ab"
    draw(
        root,
        f"X-ray/COVID/COVID_original_first.png_{uuid}.png",
        "X-ray/COVID/first.png",
        "X-ray/COVID/first_flip.png",
        "X-ray/Non-COVID/second_rot90.png",
        "X-ray/Non-COVID/second_flip_rot15.png",
        "X-ray/Non-COVID/third.png",
        "CT/COVID/first.png",
        "CT/Non-COVID/x.png",
    )
    assert find_layout(tmp_path).name == "augmented"
    samples = read_folder(tmp_path, ("non_covid19", "covid19"))
    assert len(samples) == 6
    assert Counter(codes(samples).values()) == {
        "augmented:covid19:first": 3,
        "augmented:non_covid19:second": 2,
        "augmented:non_covid19:third": 1,
    }


@pytest.mark.parametrize(
    ("stem", "name"),
    [("aug_12_8341", "aug_12"), ("COVID (3)", "covid (3)"), ("a-aug2", "a"), ("IM 4_hflip", "im 4"), ("flip", "flip")],
)
def test_original_names(stem, name):
    assert original_name(stem) == name


def test_augmented_siblings_without_telling_names_are_tied_by_the_pictures(tmp_path):
    for number in range(6):
        picture = Image.fromarray(phantom(number, width=224, height=224, opacity=random_opacities(number, number)))
        name = "COVID" if number % 2 else "Non-COVID"
        (tmp_path / name).mkdir(exist_ok=True)
        picture.save(tmp_path / name / f"{number}.png")
        if number == 3:
            picture.rotate(5, Image.Resampling.BILINEAR).save(tmp_path / name / "x.png")
    found = codes(read_folder(tmp_path, ("non_covid19", "covid19")))
    assert found["x.png"] == found["3.png"] == "augmented:covid19:3"


def test_class_folders(tmp_path):
    draw(tmp_path, "train/Covid/1.png", "test/COVID-19/1.png", "train/NORMAL/2.png", "train/Viral Pneumonia/3.png", "odd/4.png")
    with pytest.raises(DataError, match=r"The folder odd in .* has pictures and is named for no class"):
        read_folder(tmp_path)
    samples = read_folder(tmp_path, FOUR_CLASSES, labels={"odd": "lung_opacity"})
    assert Counter(sample.label for sample in samples) == {"covid19": 2, "normal": 1, "pneumonia": 1, "lung_opacity": 1}
    assert not any(sample.patient_known for sample in samples)
    assert len({sample.patient for sample in samples}) == 5
    assert len(read_folder(tmp_path, labels={"odd": ""})) == 4
    with pytest.raises(DataError, match="--label names even, and"):
        read_folder(tmp_path, labels={"odd": "", "even": "normal"})


def test_a_manifest_anywhere(data):
    assert find_layout(data / "kermany").name == "manifest"
    samples = read_folder(data / "kermany", ("normal", "pneumonia"))
    assert len(samples) == 12
    assert {sample.dataset for sample in samples} == {"kermany"}


def test_folders_that_are_none(tmp_path, kermany):
    with pytest.raises(DataError, match="There is no folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has none of the layouts manifest, radiography"):
        read_folder(tmp_path / "empty")
    with pytest.raises(DataError, match=r"There is no layout nih\. Known are manifest"):
        read_folder(kermany, layout="nih")
    with pytest.raises(DataError, match="layout kermany has labels of its own"):
        read_folder(kermany, labels={"NORMAL": "normal"})


@pytest.mark.parametrize("layout", [layout.name for layout in LAYOUTS])
def test_a_layout_forced_upon_another_folder_gives_a_sentence(layout, tmp_path):
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError):
        read_folder(tmp_path, layout=layout)
