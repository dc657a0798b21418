import { Anchor, Stack, Text } from '@mantine/core'
import { createRootRoute, createRoute, createRouter, Link, Navigate, Outlet } from '@tanstack/react-router'
import { later } from '../parts/Later'
import { EventsPage } from '../resources/events/EventsPage'
import { QuotasPage } from '../resources/quotas/QuotasPage'
import { find } from '../resources/registry'
import { t } from '../strings'
import { DetailPage } from './DetailPage'
import { ListPage } from './ListPage'
import { SessionGate } from './SessionGate'
import { lastProject, Shell } from './Shell'

// Nobody looks at these first.
const TopologyPage = later<{ project: string }>(() => import('../resources/topology/TopologyPage').then((page) => page.default))
const CreatePage = later<{ project: string }>(() => import('../resources/instances/CreatePage').then(({ CreatePage }) => CreatePage))
const Account = later(() => import('./Account').then(({ Account }) => Account))
const CapacityPage = later(() => import('../resources/capacity/CapacityPage').then((page) => page.default))

/** What of a page's state is in its address. */
interface Search {
  filter?: string
  sort?: string
  tab?: string
}

function checked(search: Record<string, unknown>): Search {
  const text = (key: string) => (search[key] === undefined ? {} : { [key]: String(search[key]) })
  return { ...text('filter'), ...text('sort'), ...text('tab') }
}

const root = createRootRoute({ component: () => <SessionGate><Outlet /></SessionGate>, notFoundComponent: NotFound, validateSearch: checked })

const index = createRoute({
  getParentRoute: () => root, path: '/',
  component: () => {
    const project = lastProject()
    return project ? <Navigate to="/projects/$project/$resource" params={{ project, resource: 'instances' }} replace /> : <Navigate to="/cloud/$resource" params={{ resource: 'projects' }} replace />
  },
})
const projectsRoute = createRoute({ getParentRoute: () => root, path: '/projects', component: () => <Navigate to="/cloud/$resource" params={{ resource: 'projects' }} replace /> })

const projectRoute = createRoute({
  getParentRoute: () => root, path: '/projects/$project',
  component: () => { const { project } = projectRoute.useParams(); return <Shell project={project}><Outlet /></Shell> },
})
const projectIndex = createRoute({
  getParentRoute: () => projectRoute, path: '/',
  component: () => { const { project } = projectRoute.useParams(); return <Navigate to="/projects/$project/$resource" params={{ project, resource: 'instances' }} replace /> },
})
const createInstance = createRoute({
  getParentRoute: () => projectRoute, path: 'create_instance',
  component: () => <CreatePage project={projectRoute.useParams().project} />,
})
const projectList = createRoute({
  getParentRoute: () => projectRoute, path: '$resource',
  component: () => {
    const { project, resource: name } = projectList.useParams()
    if (name === 'quotas') return <QuotasPage project={project} key={project} />
    if (name === 'events') return <EventsPage project={project} key={project} />
    if (name === 'topology') return <TopologyPage project={project} key={project} />
    const resource = find('project', name)
    return resource ? <ListPage key={`${project}/${name}`} resource={resource} project={project} /> : <NotFound />
  },
})
const projectDetail = createRoute({
  getParentRoute: () => projectRoute, path: '$resource/$id',
  component: () => {
    const { project, resource: name, id } = projectDetail.useParams()
    const resource = find('project', name)
    return resource ? <DetailPage key={`${name}/${id}`} resource={resource} project={project} id={id} /> : <NotFound />
  },
})

const cloudRoute = createRoute({ getParentRoute: () => root, path: '/cloud', component: () => <Shell project={undefined}><Outlet /></Shell> })
const cloudIndex = createRoute({ getParentRoute: () => cloudRoute, path: '/', component: () => <Navigate to="/cloud/$resource" params={{ resource: 'hosts' }} replace /> })
const cloudList = createRoute({
  getParentRoute: () => cloudRoute, path: '$resource',
  component: () => {
    const { resource: name } = cloudList.useParams()
    if (name === 'events') return <EventsPage project={undefined} />
    if (name === 'capacity') return <CapacityPage />
    const resource = find('cloud', name)
    return resource ? <ListPage key={name} resource={resource} project={undefined} /> : <NotFound />
  },
})
const cloudDetail = createRoute({
  getParentRoute: () => cloudRoute, path: '$resource/$id',
  component: () => {
    const { resource: name, id } = cloudDetail.useParams()
    if (name === 'projects') return <ProjectPlace id={id} />
    const resource = find('cloud', name)
    return resource ? <DetailPage key={`${name}/${id}`} resource={resource} project={undefined} id={id} /> : <NotFound />
  },
})
const account = createRoute({ getParentRoute: () => root, path: '/account', component: () => <Shell project={undefined}><Account /></Shell> })

/** A project's own page has what can be changed of it, and the way in. */
function ProjectPlace({ id }: { id: string }) {
  const resource = find('cloud', 'projects')
  if (!resource) return <NotFound />
  return (
    <Stack>
      <DetailPage resource={resource} project={undefined} id={id} />
    </Stack>
  )
}

function NotFound() {
  return (
    <Stack align="flex-start" p="xl">
      <Text>{t.notFound}</Text>
      <Anchor renderRoot={(props) => <Link {...props} to="/cloud/$resource" params={{ resource: 'projects' }} />}>{t.home}</Anchor>
    </Stack>
  )
}

export const router = createRouter({
  routeTree: root.addChildren([
    index, projectsRoute, account,
    projectRoute.addChildren([projectIndex, createInstance, projectList, projectDetail]),
    cloudRoute.addChildren([cloudIndex, cloudList, cloudDetail]),
  ]),
  defaultPreload: false,
  scrollRestoration: true,
})

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router
  }
}
