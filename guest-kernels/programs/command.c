/* See command.h. */
#include "command.h"
#include "system.h"
#include "user.h"

/* Takes the next string. */
static char *take(char **at)
{
	char *text = *at;

	*at += length(text) + 1;
	return text;
}

int read_command(const char *path, struct command *command)
{
	struct text file;
	char *at, *end, *rest;
	int count;

	if (!read_file(path, &file))
		return 0;
	at = file.bytes;
	end = at + file.len;
	command->user = take(&at);
	command->folder = take(&at);
	command->rows = number(take(&at));
	command->columns = number(take(&at));
	command->argc = number(take(&at));
	if (command->argc < 1 || (u32)command->argc > file.len)
		return 0;
	command->argv = allocate((command->argc + 1) * sizeof(*command->argv));
	for (count = 0; count < command->argc && at < end; count++)
		command->argv[count] = take(&at);
	if (count < command->argc)
		return 0;
	for (count = 0, rest = at; rest < end; count++)
		take(&rest);
	command->env = allocate((count + 1) * sizeof(*command->env));
	for (count = 0; at < end; count++)
		command->env[count] = take(&at);
	return 1;
}

/* The value of a variable of the environment, or null. */
static char *variable(char **env, const char *name)
{
	u32 len = length(name), at;

	for (; *env; env++) {
		for (at = 0; at < len && (*env)[at] == name[at]; at++)
			;
		if (at == len && (*env)[at] == '=')
			return *env + len + 1;
	}
	return 0;
}

/* Makes a folder and those that lead to it, where they are missing. */
static void make_folders(char *path)
{
	char *at;

	for (at = path + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = 0;
		syscall3(SYS_MKDIR, (arg)path, 0755, 0);
		*at = '/';
	}
	syscall3(SYS_MKDIR, (arg)path, 0755, 0);
}

static const char *reason(int error)
{
	switch (error) {
	case -ENOENT:
	case -ENOTDIR:
		return "not found";
	case -EACCES:
		return "permission denied";
	case -E2BIG:
		return "too many arguments";
	case -ENOEXEC:
		return "not a program for this machine, which is an " MACHINE;
	default:
		return "cannot be executed";
	}
}

/* Whether the file is a program in ELF, if for another machine. */
static int is_elf(const char *path)
{
	char magic[4] = { 0 };
	int fd = syscall3(SYS_OPEN, (arg)path, O_RDONLY | O_CLOEXEC, 0);

	syscall3(SYS_READ, fd, (arg)magic, sizeof(magic));
	syscall3(SYS_CLOSE, fd, 0, 0);
	return magic[0] == 0x7f && magic[1] == 'E' && magic[2] == 'L' && magic[3] == 'F';
}

/* Executes one file; one that has no format is a script. Returns the error. */
static int execute_file(char *path, struct command *command)
{
	int error = syscall3(SYS_EXECVE, (arg)path, (arg)command->argv, (arg)command->env);
	char **argv;
	int at;

	if (error != -ENOEXEC || is_elf(path))
		return error;
	argv = allocate((command->argc + 2) * sizeof(*argv));
	argv[0] = "/bin/sh";
	argv[1] = path;
	for (at = 1; at <= command->argc; at++)
		argv[at + 1] = command->argv[at];
	syscall3(SYS_EXECVE, (arg)argv[0], (arg)argv, (arg)command->env);
	return error;
}

/* Executes the command, as execvp does. Does not return. */
static void execute(struct command *command) __attribute__((noreturn));
static void execute(struct command *command)
{
	char *name = command->argv[0], *folder = variable(command->env, "PATH"), *at, *path, *end;
	int error = -ENOENT, one;

	for (at = name; *at && *at != '/'; at++)
		;
	if (*at) {
		error = execute_file(name, command);
	} else if (*name && folder) {
		path = allocate(length(folder) + length(name) + 2);
		for (;; folder = at + 1) {
			end = path;
			for (at = folder; *at && *at != ':'; at++)
				*end++ = *at;
			if (at == folder)
				*end++ = '.';
			*end++ = '/';
			*append(end, name) = 0;
			one = execute_file(path, command);
			/* What was found, but not executed, is the better reason. */
			if (one != -ENOENT && one != -ENOTDIR)
				error = one;
			if (!*at)
				break;
		}
	}
	fail(error == -ENOENT || error == -ENOTDIR ? NOT_FOUND : CANNOT_EXECUTE, name, reason(error));
}

void become(struct command *command, const char *root, const int *pipes)
{
	struct user user;
	char **env, *home;
	int at, count;

	if (syscall3(SYS_CHROOT, (arg)root, 0, 0) < 0 || syscall3(SYS_CHDIR, (arg)"/", 0, 0) < 0)
		fail(CANNOT_EXECUTE, root, "cannot be the root");
	resolve_user(command->user, &user);
	if (!variable(command->env, "HOME")) {
		for (count = 0; command->env[count]; count++)
			;
		env = allocate((count + 2) * sizeof(*env));
		for (at = 0; at < count; at++)
			env[at] = command->env[at];
		env[at] = home = allocate(length(user.home) + 6);
		append(append(home, "HOME="), user.home);
		command->env = env;
	}
	for (at = 0; pipes && at < 3; at++)
		syscall3(SYS_FCHOWN, pipes[at], user.uid, user.gid);
	/* The user may open the terminal again, too. */
	if (!pipes)
		syscall3(SYS_FCHOWN, 0, user.uid, -1);
	if (*command->folder) {
		make_folders(command->folder);
		if (syscall3(SYS_CHDIR, (arg)command->folder, 0, 0) < 0)
			fail(CANNOT_EXECUTE, command->folder, "cannot be the working directory");
	}
	mask_signals(0);
	for (at = 3; at < 10; at++)
		syscall3(SYS_CLOSE, at, 0, 0);
	if (syscall3(SYS_SETGROUPS, user.count, (arg)user.groups, 0) < 0 ||
	    syscall3(SYS_SETGID, user.gid, 0, 0) < 0 || syscall3(SYS_SETUID, user.uid, 0, 0) < 0)
		fail(CANNOT_EXECUTE, command->user, "cannot be the user");
	execute(command);
}
