"""What Trivy can judge, whoever runs it."""

# Families of operating systems whose packages it compares with advisories, with their former names. Of others, such as
# Fedora, Bottlerocket and CoreOS, it lists the packages at most. Source: github.com/aquasecurity/trivy,
# pkg/detector/ospkg, pkg/fanal/types/const.go and docs/docs/coverage/os.
SYSTEMS = frozenset(
    {
        *("alma", "alpine", "amazon", "azurelinux", "cbl-mariner", "centos", "chainguard", "cleanstart", "debian"),
        *("echo", "minimos", "opensuse-leap", "opensuse.leap", "opensuse-tumbleweed", "opensuse.tumbleweed", "oracle"),
        *("photon", "redhat", "rocky", "slem", "sles", "suse linux enterprise micro", "suse linux enterprise server"),
        *("ubuntu", "wolfi"),
    }
)
NO_SYSTEM = ("", "none")  # family where no operating system was found, as in an image that is one program
