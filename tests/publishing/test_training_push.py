"""`train.py --push_to_hub`: each push is a release that strangers can load, and nothing else leaves the machine."""

from conftest import TRAINED_ID


def test_x(trained):
    repo = trained.hub.repositories[TRAINED_ID]
    print(trained.log[-3000:])
    for c in repo.commits:
        print(c.title, sorted(c.files))
    print(repo.head.files["README.md"].content.decode())
    raise SystemExit
