"""`python -m qcli` is the command `qcli`."""

from qcli.main import main

if __name__ == "__main__":
    main()
