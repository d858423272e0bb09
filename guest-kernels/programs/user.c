/* See user.h. */
#include "user.h"

enum passwd { PW_NAME, PW_PASSWORD, PW_UID, PW_GID, PW_COMMENT, PW_HOME, PW_FIELDS };
enum group { GR_NAME, GR_PASSWORD, GR_GID, GR_MEMBERS, GR_FIELDS };

/*
 * Takes the next line of a file like passwd(5): cuts it at its colons into `fields`, of which there are `count`; those
 * that are missing are empty. Returns where the line after it begins, or null at the end.
 */
static char *take_line(char *at, char **fields, int count)
{
	int field;

	if (!at || !*at)
		return 0;
	for (field = 0; field < count; field++)
		fields[field] = "";
	field = 0;
	fields[field++] = at;
	for (; *at && *at != '\n'; at++) {
		if (*at != ':')
			continue;
		*at = 0;
		if (field < count)
			fields[field++] = at + 1;
	}
	if (*at)
		*at++ = 0;
	return at;
}

/* Looks `name` up in /etc/passwd, as a name or else as a number. Returns the name there, or null. */
static const char *look_up_user(const char *name, struct user *user)
{
	struct text file;
	char *fields[PW_FIELDS], *at;
	int id = number(name), by_name;

	for (by_name = 1; by_name >= 0; by_name--) {
		if (!read_file("/etc/passwd", &file))
			break;
		at = file.bytes;
		while ((at = take_line(at, fields, PW_FIELDS))) {
			int uid = number(fields[PW_UID]);

			if (uid < 0 || !(by_name ? equal(fields[PW_NAME], name) : uid == id))
				continue;
			user->uid = uid;
			user->gid = number(fields[PW_GID]);
			if (*fields[PW_HOME])
				user->home = fields[PW_HOME];
			return fields[PW_NAME];
		}
	}
	if (id < 0)
		fail(CANNOT_EXECUTE, name, "no such user in /etc/passwd");
	user->uid = id;
	user->gid = 0;
	return 0;
}

/* Whether the list of names, with commas between them, has `name`. Cuts it up. */
static int has_member(char *list, const char *name)
{
	char *end;

	for (;; list = end + 1) {
		for (end = list; *end && *end != ','; end++)
			;
		if (!*end)
			return equal(list, name);
		*end = 0;
		if (equal(list, name))
			return 1;
	}
}

/* Gives the user the groups of which /etc/group calls `name` a member. */
static void look_up_groups(const char *name, struct user *user)
{
	struct text file;
	char *fields[GR_FIELDS], *at;

	if (!read_file("/etc/group", &file))
		return;
	at = file.bytes;
	while ((at = take_line(at, fields, GR_FIELDS)) && user->count < GROUPS) {
		int gid = number(fields[GR_GID]);

		if (gid >= 0 && (u32)gid != user->gid && has_member(fields[GR_MEMBERS], name))
			user->groups[user->count++] = gid;
	}
}

/* The number of the group `name`, by /etc/group or else as a number. */
static u32 look_up_group(const char *name)
{
	struct text file;
	char *fields[GR_FIELDS], *at;

	if (read_file("/etc/group", &file)) {
		at = file.bytes;
		while ((at = take_line(at, fields, GR_FIELDS)))
			if (equal(fields[GR_NAME], name) && number(fields[GR_GID]) >= 0)
				return number(fields[GR_GID]);
	}
	if (number(name) < 0)
		fail(CANNOT_EXECUTE, name, "no such group in /etc/group");
	return number(name);
}

void resolve_user(char *text, struct user *user)
{
	char *group = text;
	const char *name;

	user->home = "/";
	user->count = 0;
	while (*group && *group != ':')
		group++;
	if (*group)
		*group++ = 0;
	name = look_up_user(*text ? text : "0", user);
	if (!user->uid && !name)
		user->home = "/root";
	if (*group)
		user->gid = look_up_group(group);
	/* As initgroups(3) does: the user's own group is among the others. */
	user->groups[user->count++] = user->gid;
	if (!*group && name)
		look_up_groups(name, user);
}
