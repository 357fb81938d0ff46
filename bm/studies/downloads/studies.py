"""Where each study's data come from: projects, files that are needed, and the way by hand.

A study is known here by its name; any other dataset of a service is called ``osf:ID``,
``zenodo:RECORD``, ``dryad:DOI``, or by the URL of a file.
"""

from bm.core.messages import did_you_mean
from bm.studies.downloads.folders import Osf, WebDav
from bm.studies.downloads.plan import Plan
from bm.studies.downloads.sources import ByHand, Dryad, Source, Urls, Zenodo
from bm.studies.downloads.unpack import Archive

HONU = "https://ai.honu.io/papers/brainmagick"
"""Where the authors of the paper keep what they added to two of the studies."""

GWILLIAMS = Plan(
    (
        Osf(
            name="osf",
            nodes=("ag3kj", "h2tzn", "u5327"),
            include=(
                "*",
                "stimuli/**",
                "sub-{subject}/ses-*/*_scans.tsv",
                "sub-{subject}/ses-*/meg/**",
            ),
            landmarks=("sub-*/ses-*/meg/*_meg.con", "stimuli/audio/*.wav"),
            steps="""
Get the files with a browser: https://osf.io/ag3kj, https://osf.io/h2tzn, https://osf.io/u5327,
"Files", "Download this folder". Put all three parts together into {root}, so that sub-01, sub-02,
... and stimuli are in it.""",
        ),
    ),
    n_digits=2,
)

BRODERICK = Plan(
    (
        Dryad(
            name="dryad",
            doi="10.5061/dryad.070jc",
            include=("Natural Speech.zip", "Natural Speech/**"),
            landmarks=("Natural Speech/EEG/Subject*/*.mat",),
            steps="""
Dryad wants a token, or a person. Either make an account at https://datadryad.org, get a token there
("My account", "API account"), set DRYAD_TOKEN to it and run the same command again. Or open
https://doi.org/10.5061/dryad.070jc in a browser, download "Natural Speech.zip" or all of it, put it
into {root}, packed as it is, and run the same command again.""",
        ),
        Urls(
            name="stimuli",
            server=HONU,
            files=("private.zip",),
            include=("private.zip", "private/**"),
            landmarks=("private/audio*.wav", "private/align*.json", "private/oldman_run*.txt"),
            steps="""
Sounds, texts and alignments aren't published with the EEG, for copyright. For each run N, from 1 to
20, put into {root}/private: audioN.wav, the sound (OpenNeuro's ds004408 has it); oldman_runN.txt,
what is read in it; and alignN.json, made of these two by Gentle, https://github.com/strob/gentle.""",
        ),
    ),
    archives=(
        Archive("doi_*.zip", into="", members=("Natural Speech.zip",)),
        Archive("Natural Speech.zip"),
        Archive("private.zip", into="private"),
    ),
)

BRENNAN = Plan(
    (
        ByHand(
            name="deepblue",
            include=(
                "S[0-9][0-9].*",
                "AliceChapterOne-EEG.csv",
                "README.txt",
                "datasets.mat",
                "comprehension-*",
                "audio/*",
                "proc/*",
                "timelock-preprocessing/*",
            ),
            landmarks=(
                "AliceChapterOne-EEG.csv",
                "S[0-9][0-9].mat|S[0-9][0-9].eeg",
                "proc/S*.mat|timelock-preprocessing/S*.mat",
                "audio/*.wav",
            ),
            releases={
                "AliceChapterOne-EEG.csv": (
                    "523e4bdba0419d699c3515d9d5ae9d27",  # 2018
                    "66af81f4c576f9f4d3ee91fb60ed8c13",  # 2023
                )
            },
            steps="""
Deep Blue Data answers browsers and Globus only. Put all files of one of the two releases into
{root}, archives packed as they are, and run the same command again:
  2018 (MATLAB): https://doi.org/10.7302/Z29C6VNH
  2023 (BrainVision): https://doi.org/10.7302/746w-g237, or by Globus:
    globus transfer --recursive cc387c09-b0e5-422b-a384-0d96e7ffdc73:/bn/99/97/38/r/ MINE:{root}
  where MINE is the id of a Globus collection of your own.""",
        ),
    ),
    archives=(Archive("audio.zip"), Archive("proc.zip")),
)

SCHOFFELEN = Plan(
    (
        WebDav(
            name="donders",
            server="https://webdav.data.ru.nl/dccn/DSC_3011020.09_236_v1",
            user_variable="DONDERS_USER",
            password_variable="DONDERS_PASSWORD",
            checksums="MANIFEST.txt",
            include=(
                "*",
                "stimuli/stimuli.txt",
                "stimuli/audio_files/*",
                "sourcedata/meg_task/{subject}-*",
                "sub-{subject}/meg/*_task-auditory*",
                "sub-{subject}/meg/*_task-auditory*/**",
                "sub-{subject}/meg/*_task-visual*",
                "sub-{subject}/meg/*_task-visual*/**",
                "sub-{subject}/meg/*_headshape.pos",
                "sub-{subject}/meg/*_coordsystem.json",
            ),
            landmarks=(
                "sub-*/meg/*_meg.ds/*.meg4",
                "sourcedata/meg_task/*.log",
                "stimuli/stimuli.txt",
            ),
            steps="""
The collection is open to those who accept its terms of use:
1. Log in at https://data.ru.nl (ORCID or your institute), look for DSC_3011020.09_236 ("MOUS"), ask
   for access, and accept the data use agreement (RU-DI-HD-1.0: no redistribution).
2. In your profile there, get "data access" credentials.
3. Set DONDERS_USER and DONDERS_PASSWORD to them, or write them into ~/.netrc (chmod 600):
   machine webdav.data.ru.nl login USER password PASSWORD
4. Run the same command again. Or fetch the files by another WebDAV program, into {root}.""",
        ),
        Urls(
            name="alignment",
            server=HONU,
            files=("derivatives.zip",),
            include=("derivatives.zip", "derivatives/phonemes/*"),
            landmarks=("derivatives/phonemes/*.TextGrid",),
            modality="audio",
            steps="""
When each word and phoneme is heard isn't part of the collection. Align the sounds of
stimuli/audio_files with the texts in stimuli/stimuli.txt by WebMAUS for Dutch
(https://clarin.phonetik.uni-muenchen.de/BASWebServices), and put the TextGrid files, named like
their sounds, into {root}/derivatives/phonemes.""",
        ),
    ),
    archives=(Archive("derivatives.zip", into="derivatives"),),
    groups={"audio": "A*", "visual": "V*"},
)

PLANS: dict[str, Plan] = {
    "gwilliams2022": GWILLIAMS,
    "broderick2019": BRODERICK,
    "brennan2019": BRENNAN,
    "schoffelen2019": SCHOFFELEN,
}
"""Plans of the studies, by name."""


def find_plan(name: str) -> Plan:
    """Plan of a study, or of a dataset of a service.

    Raises
    ------
    ValueError : nothing is known by this name.
    """
    if name in PLANS:
        return PLANS[name]
    service, _, which = name.partition(":")
    source: Source
    if service == "osf":
        source = Osf(name="osf", nodes=(which,))
    elif service == "zenodo":
        source = Zenodo(name="zenodo", record=which)
    elif service == "dryad":
        source = Dryad(name="dryad", doi=which)
    elif service in ("https", "http"):
        server, _, file = name.rpartition("/")
        source = Urls(name="url", server=server, files=(file,))
    else:
        known = [*PLANS, "osf:ID", "zenodo:RECORD", "dryad:DOI", "https://..."]
        hint = did_you_mean(name, known)
        raise ValueError(f"Nothing is known of how to download {name!r}. {hint}")
    return Plan((source,), folder="")
