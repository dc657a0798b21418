-- Passwords that somebody else knows: of their sessions nothing is taken but a new password.

ALTER TABLE user_passwords ADD COLUMN change_required boolean NOT NULL DEFAULT false;
-- Whoever has chosen a password keeps it; from now on each one says so.
ALTER TABLE user_passwords ALTER COLUMN change_required DROP DEFAULT;
