"""What the Helm chart's Jobs do: make secrets and certificates, bring CRDs up to date, take leave, try the product."""
