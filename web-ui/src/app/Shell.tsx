import { ActionIcon, Anchor, AppShell, Badge, Burger, Button, Group, Image, Menu, NavLink, ScrollArea, Select, Text, Tooltip, UnstyledButton, useComputedColorScheme, useMantineColorScheme } from '@mantine/core'
import { useDisclosure, useHotkeys } from '@mantine/hooks'
import IconMoon from '@tabler/icons-react/dist/esm/icons/IconMoon.mjs'
import IconSearch from '@tabler/icons-react/dist/esm/icons/IconSearch.mjs'
import IconSun from '@tabler/icons-react/dist/esm/icons/IconSun.mjs'
import IconUser from '@tabler/icons-react/dist/esm/icons/IconUser.mjs'
import { Link, useLocation, useNavigate } from '@tanstack/react-router'
import { useEffect, type ReactNode } from 'react'
import type { Schemas } from '../api/client'
import { useRows } from '../api/rows'
import { useLive, type LiveState } from '../api/live'
import { projects } from '../resources/projects'
import { t } from '../strings'
import { Palette } from './Palette'
import { cloudSections, projectSections, type Place } from './places'
import { leave, useMe } from './SessionGate'
import style from './Shell.module.css'

const LAST_PROJECT = 'cumulo.project'
export const lastProject = () => localStorage.getItem(LAST_PROJECT) ?? undefined

/** What is around every page. `project` is the one that is shown; without one, it is the cloud. */
export function Shell({ project, children }: { project: string | undefined; children: ReactNode }) {
  const [menu, { toggle, close }] = useDisclosure()
  const [palette, setPalette] = useDisclosure()
  const live = useLive(project)
  const { pathname } = useLocation()
  useHotkeys([['mod+K', setPalette.open], ['/', setPalette.open]])
  useEffect(close, [pathname, close])
  useEffect(() => {
    if (project) localStorage.setItem(LAST_PROJECT, project)
  }, [project])
  const remembered = project ?? lastProject()
  return (
    <AppShell header={{ height: 56 }} navbar={{ width: 232, breakpoint: 'sm', collapsed: { mobile: !menu } }} padding={{ base: 'md', md: 'xl' }}>
      <a href="#content" className={style.skip}>{t.skip}</a>
      <AppShell.Header px="md">
        <Group h="100%" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger opened={menu} onClick={toggle} hiddenFrom="sm" size="sm" aria-label={t.menu} />
            <Anchor underline="never" c="inherit" aria-label={t.product} renderRoot={(props) => <Link {...props} to="/" />}>
              <Group gap="xs" wrap="nowrap"><Image src="/icon.svg" alt="" w={28} h={28} /><Text fw={600} visibleFrom="sm">{t.product}</Text></Group>
            </Anchor>
            <ProjectSwitcher project={project} />
          </Group>
          <Group gap="xs" wrap="nowrap">
            <LiveBadge state={live} />
            <Button variant="default" size="xs" leftSection={<IconSearch size={14} />} onClick={setPalette.open} visibleFrom="md" c="dimmed" rightSection={<Text size="xs" c="dimmed">Ctrl K</Text>}>{t.palette}</Button>
            <ActionIcon variant="subtle" color="gray" onClick={setPalette.open} hiddenFrom="md" aria-label={t.palette}><IconSearch size={18} /></ActionIcon>
            <Scheme />
            <UserMenu />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar>
        <ScrollArea p="sm" type="hover" scrollbarSize={8}>
          <nav aria-label={t.menu}>
            {remembered && projectSections.map(({ title, places }) => (
              <Places key={title} title={title} places={places} link={(name) => <Link to="/projects/$project/$resource" params={{ project: remembered, resource: name }} />} base={`/projects/${remembered}/`} pathname={decodeURI(pathname)} />
            ))}
            {cloudSections.map(({ title, places }) => (
              <Places key={title} title={title} places={places} link={(name) => <Link to="/cloud/$resource" params={{ resource: name }} />} base="/cloud/" pathname={pathname} />
            ))}
          </nav>
        </ScrollArea>
      </AppShell.Navbar>
      <AppShell.Main id="content" tabIndex={-1} className={style.main}>
        {live === 'lost' && <div role="alert" className={style.lost}>{t.live.lost}</div>}
        {children}
      </AppShell.Main>
      <Palette opened={palette} close={setPalette.close} project={remembered} />
    </AppShell>
  )
}

function Places({ title, places, link, base, pathname }: { title: string; places: Place[]; link: (name: string) => React.ReactElement<object>; base: string; pathname: string }) {
  return (
    <div className={style.section}>
      <Text size="xs" c="dimmed" fw={500} px="sm" mb={2}>{title}</Text>
      {places.map(({ name, icon: Icon }) => {
        const active = pathname === `${base}${name}` || pathname.startsWith(`${base}${name}/`) || (name === 'instances' && pathname === `${base}create_instance`)
        const { type: Root, props } = link(name) as React.ReactElement<object> & { type: typeof Link }
        return <NavLink key={name} active={active} aria-current={active ? 'page' : undefined} label={t.resource(name).title} leftSection={<Icon size={17} stroke={1.6} />} py={6} className={style.place} renderRoot={(root) => <Root {...root} {...props} />} />
      })}
    </div>
  )
}

function ProjectSwitcher({ project }: { project: string | undefined }) {
  const rows = useRows<Schemas['Project']>(projects, undefined)
  const navigate = useNavigate()
  const names = (rows.data ?? []).map(({ name }) => name)
  if (project && !names.includes(project)) names.push(project)
  return (
    <Select
      aria-label={t.switchProject} placeholder={t.project} data={names} value={project ?? null} searchable w={{ base: 150, sm: 200 }} size="xs" comboboxProps={{ width: 240, position: 'bottom-start' }} allowDeselect={false}
      onChange={(next) => next && void navigate({ to: '/projects/$project/$resource', params: { project: next, resource: 'instances' } })}
    />
  )
}

function LiveBadge({ state }: { state: LiveState }) {
  const colour = { live: 'teal', connecting: 'gray', lost: 'red' }[state]
  return (
    <Tooltip label={t.live[state]}>
      <Badge variant="dot" color={colour} tt="none" fw={400} role="status" aria-label={t.live[state]} visibleFrom="xs">{state === 'live' ? t.live.live : state === 'lost' ? '!' : '…'}</Badge>
    </Tooltip>
  )
}

function Scheme() {
  const { setColorScheme } = useMantineColorScheme()
  const now = useComputedColorScheme('light')
  return <ActionIcon variant="subtle" color="gray" aria-label={t.scheme} onClick={() => setColorScheme(now === 'dark' ? 'light' : 'dark')}>{now === 'dark' ? <IconSun size={18} /> : <IconMoon size={18} />}</ActionIcon>
}

function UserMenu() {
  const me = useMe()
  return (
    <Menu position="bottom-end">
      <Menu.Target><UnstyledButton className={style.user} aria-label={`${t.account}: ${me.name}`}><IconUser size={18} /><Text size="sm" visibleFrom="sm">{me.name}</Text></UnstyledButton></Menu.Target>
      <Menu.Dropdown>
        <Menu.Item renderRoot={(props) => <Link {...props} to="/account" />}>{t.account}</Menu.Item>
        <Menu.Item component="a" href="/docs/" target="_blank" rel="noopener">{t.reference}</Menu.Item>
        <Menu.Divider />
        <Menu.Item onClick={() => void leave()}>{t.signOut}</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  )
}
