"""The ledger: every accepted record has one outcome for each revision, and this says where that is not so."""
