"""AWS: EKS clusters and ECR repositories of accounts and their regions, read through boto3."""
