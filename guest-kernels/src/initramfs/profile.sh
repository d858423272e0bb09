# Read by a login shell.
export PATH=/bin HOME=/root USER=root LOGNAME=root SHELL=/bin/sh PAGER=less
export PS1='\u@\h:\w# '
alias ll='ls -l'
# There is no init to ask for these; ask the kernel.
alias poweroff='poweroff -f' reboot='reboot -f' halt='halt -f'
