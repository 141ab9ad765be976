"""Reads what registries say of images: JFrog's Artifactory with Xray, and any registry that speaks the OCI protocol."""
