"""Google Cloud: GKE clusters and Artifact Registry repositories of projects, read through Google's own libraries."""
